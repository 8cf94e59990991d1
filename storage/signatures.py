"""Addresses without their signatures and passwords, which are secret, and signatures are others each time."""

import re
from urllib.parse import unquote

# Amazon S3 and CloudFront, Google Cloud, Alibaba, Tencent, Akamai, Facebook's CDN, and what smaller sites call theirs.
_SIGNATURE = re.compile(
    r"(?:amp;)?(?:x-amz-[\w-]+|x-goog-[\w-]+|x-oss-[\w-]+|x-cos-security-token|awsaccesskeyid|googleaccessid|"
    r"ossaccesskeyid|key-pair-id|policy|credential|q-(?:sign-algorithm|ak|sign-time|key-time|header-list|"
    r"url-param-list|signature)|hdnts|hdnea|__gda__|oh|oe|_nc_(?:ohc|sid|gid|oc)|sig|signature|hmac|auth_key|"
    r"expir(?:y|es)|[\w-]*token|(?:api|access)[_-]?key|api_sig|[\w-]*secret|pass(?:wd|word)?|pwd|"
    r"\w*sess(?:ion)?[_-]?id|auth|jwt)",
    re.IGNORECASE,
)
# Azure's, which are so short that they say something else where no ``sig`` stands beside them.
_OF_AZURE = re.compile(r"s[vertpis]|srt|spr|sip|skoid|sktid|sk[tesv]|sdd|saoid|suoid|scid|rsc[cdelt]", re.IGNORECASE)


# A credential, unless its value looks like what names a file: a number, or with a dot or a slash.
_KEY = re.compile(r"(?:key|sid|session)=(?![0-9]+$)(?!.*(?:[./]|%2[ef])).+", re.IGNORECASE)
_USER = re.compile(r"((?:[a-z][a-z0-9+.-]*:)?//)[^/?#]*@", re.IGNORECASE)  # and a password, before the host
_SEPARATOR = re.compile(r"(&|(?<!\bamp);)")  # of parameters of a query, which may be written &amp; too
_OF_PATH = re.compile(r";([^;/=]+)=[^;/]*")  # a parameter


def unsigned(url: str) -> str:
    """``url`` without a fragment, a user and the parameters of a signature: what names a picture, and may be told.

    Other parameters stay: they may be what tells two pictures apart.
    """
    address, _, query = anonymous(url).partition("#")[0].partition("?")
    address = _OF_PATH.sub(lambda found: "" if _is_secret(found[1], found[0][1:]) else found[0], address)
    first, *others = _SEPARATOR.split(query)
    parts = [("", first), *zip(others[::2], others[1::2], strict=True)]
    named = [(unquote(part.partition("=")[0]), mark, part) for mark, part in parts]
    is_azure = any(name.lower() == "sig" for name, _, _ in named)
    kept = [
        (mark, part)
        for name, mark, part in named
        if not (_is_secret(name, part) or (is_azure and _OF_AZURE.fullmatch(name)))
    ]
    rest = "".join(mark + part for mark, part in kept)[len(kept[0][0]) :] if kept else ""
    return f"{address}?{rest}" if any(part for _, part in kept) else address


def _is_secret(name: str, part: str) -> bool:
    """Whether a parameter, ``part``, of that name is a signature or a password."""
    return bool(_SIGNATURE.fullmatch(name) or _KEY.fullmatch(part))


def anonymous(url: str) -> str:
    """``url`` without the user, and the password, that may stand before its host."""
    found = _USER.match(url)
    return found[1] + url[found.end() :] if found else url
