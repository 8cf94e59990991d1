"""icrawler: its crawler of URL lists, or its Flickr crawler pointed at another address of the API.

Run in the environment of the peers: ``python run_icrawler.py urls FILE FOLDER THREADS`` or
``python run_icrawler.py flickr API_URL TEXT FOLDER THREADS``. The latter downloads nothing: it prints how many
different photos it would download.
"""

import json
import logging
import sys
from typing import Any, ClassVar

import requests
from icrawler import Downloader
from icrawler.builtin import FlickrImageCrawler, UrlListCrawler
from requests.adapters import HTTPAdapter

REAL_API = "https://api.flickr.com/services/rest/"
KEY = "0" * 32
MOST = 1 << 30


def fetch_urls(url_file: str, folder: str, threads: int) -> None:
    """Download every URL of a file with ``threads`` downloaders, and a connection kept open for each."""
    storage = {"backend": "FileSystem", "root_dir": folder}
    crawler = UrlListCrawler(downloader_threads=threads, storage=storage, log_level=logging.WARNING)
    crawler.session.mount("http://", HTTPAdapter(pool_connections=threads, pool_maxsize=threads))
    crawler.crawl(url_list=url_file, max_num=MOST)


class Elsewhere(HTTPAdapter):
    """Sends what is meant for Flickr's API to another address: its own stands in the middle of its functions."""

    def __init__(self, api_url: str, connections: int) -> None:
        self.api_url = api_url
        super().__init__(pool_connections=connections, pool_maxsize=connections)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """As ever, but there."""
        request.url = (request.url or "").replace(REAL_API, self.api_url)
        return super().send(request, *arguments, **options)


class Counting(Downloader):  # type: ignore[misc]
    """Notes the photos that it is told to download, instead of downloading them."""

    found: ClassVar[set[str]] = set()

    def download(self, task: dict[str, Any], *arguments: Any, **options: Any) -> None:
        """Note one."""
        self.found.add(task["meta"]["id"])
        self.fetched_num += 1


def list_flickr(api_url: str, text: str, folder: str, threads: int) -> None:
    """How many photos its Flickr crawler finds for ``text`` if it is asked for all that it can list, 500 a page."""
    storage = {"backend": "FileSystem", "root_dir": folder}
    crawler = FlickrImageCrawler(
        KEY, parser_threads=threads, downloader_cls=Counting, storage=storage, log_level=logging.ERROR
    )
    crawler.session.mount("https://api.flickr.com/", Elsewhere(api_url, threads))
    crawler.crawl(max_num=MOST, text=text, per_page=500)
    print(json.dumps({"unique": len(Counting.found)}))


if __name__ == "__main__":
    mode, *arguments = sys.argv[1:]
    {"urls": fetch_urls, "flickr": list_flickr}[mode](*arguments[:-1], int(arguments[-1]))  # type: ignore[operator]
