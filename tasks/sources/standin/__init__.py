"""A stand-in photo site on loopback: the wire formats of Flickr and 500px over invented photos or over a folder.

It knows neither Prefect nor torch, nor anything of the sources that it stands in for, so that client and server
cannot share a misreading.
"""

from tasks.sources.standin.camera import CameraFacts, Lens, encode_jpeg, render
from tasks.sources.standin.catalogue import Catalogue
from tasks.sources.standin.facts import Owner, Photo
from tasks.sources.standin.faults import Fault
from tasks.sources.standin.flickr_api import Keys
from tasks.sources.standin.images import HostHabits
from tasks.sources.standin.photo_search import SearchHabits
from tasks.sources.standin.pictures import Picture, Scene
from tasks.sources.standin.px500_api import Px500Habits
from tasks.sources.standin.server import StandIn

__all__ = [
    "CameraFacts",
    "Catalogue",
    "Fault",
    "HostHabits",
    "Keys",
    "Lens",
    "Owner",
    "Photo",
    "Picture",
    "Px500Habits",
    "Scene",
    "SearchHabits",
    "StandIn",
    "encode_jpeg",
    "render",
]
