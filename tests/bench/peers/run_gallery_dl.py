"""gallery-dl, pointed at another address of the API; everything else stays its own.

Run in the environment of the peers: ``python run_gallery_dl.py API_URL [gallery-dl's own arguments]``.
"""

import sys

import gallery_dl
from gallery_dl.extractor import flickr

if __name__ == "__main__":
    flickr.FlickrAPI.API_URL = sys.argv.pop(1)
    flickr.FlickrAPI.API_KEY = None  # it would ask flickr.com for one before it reads its configuration
    flickr.FlickrExtractor.request_interval_min = 0.0  # it waits for 0.5 s between calls, whatever it is told
    sys.exit(gallery_dl.main())
