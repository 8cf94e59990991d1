"""img2dataset over a list of URLs: files as they are, no resizing, no new encoding.

Run in the environment of the peers: ``python run_img2dataset.py FILE FOLDER PROCESSES THREADS PHOTOS_PER_SHARD decode``
(it decodes every picture, and refuses what cannot be decoded) or ``... raw`` (it looks at none).
"""

import os
import sys

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would ask the package index, in every process

from img2dataset import download

if __name__ == "__main__":
    url_file, folder, processes, threads, photos_per_shard, mode = sys.argv[1:]
    download(
        url_list=url_file,
        output_folder=folder,
        processes_count=int(processes),
        thread_count=int(threads),
        number_sample_per_shard=int(photos_per_shard),
        output_format="files",
        resize_mode="no",
        skip_reencode=True,
        disable_all_reencoding=mode == "raw",
        extract_exif=False,
        compute_hash="sha256",
        retries=2,
        enable_wandb=False,
    )
