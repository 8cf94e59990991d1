"""What a file of a photo says and shows: decoding, EXIF, signs of editing, hashes, lossless turns."""
