"""Where requests may go, and what of an address is kept to ourselves."""

import pytest

from tasks.addresses import host_of, is_allowed, is_inside, redact, without_query

HOSTS = frozenset({"live.staticflickr.com", "127.0.0.1:8123", "[::1]:80"})


@pytest.mark.parametrize(
    "url",
    [
        "https://live.staticflickr.com/1/2_b.jpg", "http://LIVE.staticflickr.com/1/2_b.jpg", "http://127.0.0.1:8123/x",
        "http://[::1]/x", "https://live.staticflickr.com:443/x", "http://live.staticflickr.com:80/x",
    ],
)  # fmt: skip
def test_listed_hosts_may_be_asked(url: str) -> None:
    """A host is listed with its port, or for the port that its scheme has."""
    assert is_allowed(url, HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://127.0.0.1:22/x", "http://localhost:8123/x", "http://169.254.169.254/latest",
        "http://10.0.0.1/x", "https://staticflickr.com/x", "https://live.staticflickr.com.evil.org/x",
        "https://live.staticflickr.com@evil.org/x", "https://user@live.staticflickr.com/x", "file:///etc/passwd",
        "ftp://live.staticflickr.com/x", "//live.staticflickr.com/x", "http://[::1/x", "http://live.staticflickr.com:x/",
        "http://live.staticflickr.com:8080/x", "http://live.staticflickr.com:443/x", "",
    ],
)  # fmt: skip
def test_nobody_else_may_be_asked(url: str) -> None:
    """Neither this machine nor its neighbours, nor a name that only looks like a listed one."""
    assert not is_allowed(url, HOSTS)


@pytest.mark.parametrize(
    ("host", "urls"),
    [
        ("img.example.org", "http://IMG.example.org/1 https://img.example.org:443/1 http://img.example.org.:80/1"),
        ("img.example.org:81", "http://img.EXAMPLE.org:81/1 http://img.example.org.:81/1"),
        ("xn--bcher-kva.example", "http://b\u00fccher.example/ https://B\u00dcCHER.example/ http://xn--bcher-kva.example/"),
        ("[::1]", "http://[::1]/ http://[::1]:80/"), ("a..b", "http://a..b/"), ("x" * 64, f"http://{'x' * 64}/"),
    ],
)  # fmt: skip
def test_a_host_has_one_pace_however_it_is_spelled(host: str, urls: str) -> None:
    """Case, a dot at the end, the default port and the two forms of a name make no host of their own."""
    assert {host_of(url) for url in urls.split()} == {host}


def test_an_address_inside_is_allowed_only_with_its_port() -> None:
    """To list 127.0.0.1, or a metadata address, opens no port of it; to list host:port opens that one."""
    hosts = frozenset({"127.0.0.1", "169.254.169.254", "localhost", "10.0.0.1:80"})
    assert not any(is_allowed(f"http://{host}/", hosts) for host in ("127.0.0.1", "169.254.169.254", "localhost"))
    assert is_allowed("http://10.0.0.1/", hosts)


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True), ("127.8.9.1", True), ("10.0.0.1", True), ("172.16.0.1", True), ("192.168.1.1", True),
        ("169.254.169.254", True), ("100.64.0.1", True), ("0.0.0.0", True), ("224.0.0.1", True), ("::1", True),
        ("fe80::1%eth0", True), ("fd00:ec2::254", True), ("::ffff:10.0.0.1", True), ("::ffff:127.0.0.1", True),
        ("2002:7f00:1::", True), ("64:ff9b::a9fe:a9fe", True), ("[::1]", True), ("localhost", True),
        ("::127.0.0.1", True), ("fec0::1", True), ("64:ff9b:1::7f00:1", True), ("168.63.129.16", True),
        ("LOCALHOST.", True), ("8.8.8.8", False), ("2606:4700::1111", False), ("::ffff:8.8.8.8", False),
        ("64:ff9b::808:808", False), ("live.staticflickr.com", False),
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_known(host: str, inside: bool) -> None:
    """This machine, private networks, links and metadata services, also wrapped into IPv6."""
    assert is_inside(host) is inside


def test_a_picture_is_named_without_its_signature() -> None:
    """What stands behind the question mark may be a signature; it is not kept."""
    assert without_query("https://h/p/1/s600.jpg?sig=ab&expiry=1790000000#x") == "https://h/p/1/s600.jpg"


@pytest.mark.parametrize(
    "url",
    [
        "https://ann:s3cret@h/@b/1.jpg", "//s3cret@h/@b/1.jpg?a", "HTTP://a:p@s3cret@h/@b/1.jpg#b",
        "ftp://:s3cret@h/@b/1.jpg",
    ],
)  # fmt: skip
def test_a_picture_is_named_without_a_password(url: str) -> None:
    """Nobody is asked under such an address, and what is kept of it has no user; an ``@`` behind the host stays."""
    assert without_query(url) == f"{url.partition('//')[0]}//h/@b/1.jpg"


def test_secrets_are_blanked_out() -> None:
    """Neither a URL nor a sentence around it keeps the key; the rest stays readable."""
    url = "https://api.flickr.com/services/rest/?method=flickr.test.echo&api_key=0123abcd&text=a"
    assert redact(url) == "https://api.flickr.com/services/rest/?method=flickr.test.echo&api_key=***&text=a"
    assert "s3cret" not in redact(
        "broken: '/x?oauth_token=s3cret&api_sig=s3cret' client_secret=s3cret, auth_token=s3cret"
    )
    assert redact("GET /?method=a&key=s3cret&auth=s3cret&n=1") == "GET /?method=a&key=***&auth=***&n=1"
    signed = "GET /1.jpg?sig=s3cret&expiry=s3cret&X-Amz-Signature=s3cret&csrf=s3cret; x-500px-csrf-token-prod=s3cret"
    assert "s3cret" not in redact(signed)


@pytest.mark.parametrize(
    "text",
    [
        "FLICKR_API_KEY={}", '"api_key": "{}"', "{{'api_key': '{}'}}", "api_key%3D{}", "Authorization: Bearer {}",
        "{{'Authorization': 'Basic {}'}}", "auth_key={}", "hmac={}", "apikey={}", "access_key={}", "x-csrf-token: {}",
        "https://ann:{}@h/x.jpg", "https://ann:p@{}@h/x.jpg", "GET http://{}@h: no", "AWSAccessKeyId={}",
        "X-Goog-Signature={}", "/x?jwt={}",
    ],
)  # fmt: skip
def test_secrets_are_blanked_out_in_whatever_form(text: str) -> None:
    """As a variable, a header, a field of JSON, a parameter within a parameter, and before a host."""
    assert redact(text.format("s3cret0")) == text.format("***").replace("ann:p@", "").replace("ann:", "")


@pytest.mark.parametrize(
    "text",
    [
        "Flickr says that FLICKR_API_KEY is expired (100): get a valid key at https://www.flickr.com/services/apps/",
        "the signature: of 3 photos", "sort key=date", "auth: not needed", "policy: keep", '"title": "a key: b"',
        "https://h/photos/@ann/1?page=2", "mail me@example.org // or not", "https://h/p?monkey=1&author=ann",
        "hosts=a.example, tokens: 25", "state=present photo_id=1 owner_id=77777777@N07",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays_readable(text: str) -> None:
    """Sentences about keys and signatures, and parameters whose names only look like theirs."""
    assert redact(text) == text
