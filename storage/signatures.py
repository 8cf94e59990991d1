"""Addresses without their signatures and passwords, which are secret, and signatures are others each time."""

import re
from urllib.parse import unquote

# Amazon S3 and CloudFront, Google Cloud, Alibaba, Tencent, Akamai, Facebook's CDN, and what smaller sites call theirs.
_SIGNATURE = re.compile(
    r"(?:amp;)?(?:x-amz-[\w-]+|x-goog-[\w-]+|x-oss-[\w-]+|x-cos-security-token|awsaccesskeyid|googleaccessid|"
    r"ossaccesskeyid|key-pair-id|policy|credential|q-(?:sign-algorithm|ak|sign-time|key-time|header-list|"
    r"url-param-list|signature)|hdnts|hdnea|__gda__|oh|oe|_nc_(?:ohc|sid|gid|oc)|sig|signature|hmac|auth_key|"
    r"expir(?:y|es)|[\w-]*token|(?:api|access)[_-]?key|api_sig|[\w-]*secret|pass(?:wd|word)?|auth|jwt)",
    re.IGNORECASE,
)
# Azure's, which are so short that they say something else where no ``sig`` stands beside them.
_OF_AZURE = re.compile(r"s[vertpis]|srt|spr|sip|skoid|sktid|sk[tesv]|sdd|saoid|suoid|scid|rsc[cdelt]", re.IGNORECASE)


# A credential, unless its value looks like what names a file: a number, or with a dot or a slash.
_KEY = re.compile(r"key=(?![0-9]+$)(?!.*(?:[./]|%2[ef])).+", re.IGNORECASE)
_USER = re.compile(r"((?:[a-z][a-z0-9+.-]*:)?//)[^/?#]*@", re.IGNORECASE)  # and a password, before the host


def unsigned(url: str) -> str:
    """``url`` without a fragment, a user and the parameters of a signature: what names a picture, and may be told.

    Other parameters stay: they may be what tells two pictures apart.
    """
    address, _, query = anonymous(url).partition("#")[0].partition("?")
    named = [(unquote(part.partition("=")[0]), part) for part in query.split("&")]
    is_azure = any(name.lower() == "sig" for name, _ in named)
    kept = [
        part
        for name, part in named
        if not (_SIGNATURE.fullmatch(name) or _KEY.fullmatch(part) or (is_azure and _OF_AZURE.fullmatch(name)))
    ]
    return f"{address}?{'&'.join(kept)}" if any(kept) else address


def anonymous(url: str) -> str:
    """``url`` without the user, and the password, that may stand before its host."""
    found = _USER.match(url)
    return found[1] + url[found.end() :] if found else url
