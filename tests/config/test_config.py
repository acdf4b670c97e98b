"""The settings: what is in force, where it came from, and every fault at once."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from responder.config import DatabaseSettings, Endpoint, Settings, ZoneSettings, load, parse_duration, sources
from responder.config.api import CAA_WARNING
from responder.dns.rrset import RRType
from responder.dns.zonetext import print_rrset
from responder.errors import Invalid, InvalidConfiguration
from responder.names import Name
from tests.support.places import ROOT

EXAMPLE = ROOT / "config" / "responder.example.toml"

ZONE = """
[[zones]]
name = "acme.example.com"
hostmaster = "hostmaster@example.com"
[zones.nameservers]
"ns1.acme.example.com" = ["192.0.2.1"]
"""
STRANGER = 65_534
"""The id of another user."""

ZONES = json.dumps(tomllib.loads(ZONE)["zones"])


@pytest.fixture(name="file")
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test may put its settings; nothing else is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "PLACES", (Path("responder.toml"), tmp_path / "etc" / "responder.toml"))
    return tmp_path / "responder.toml"


def read(file: Path, text: str, **variables: str) -> Settings:
    """The settings that *text* and the environment *variables* make."""
    file.write_text(text, encoding="utf-8")
    return load(file, variables)


def faults(file: Path, text: str, **variables: str) -> tuple[str, ...]:
    """What is wrong with *text* and the environment *variables*."""
    with pytest.raises(InvalidConfiguration) as caught:
        read(file, text, **variables)
    return caught.value.faults


@pytest.mark.parametrize("misplaced", ['records = "x A 192.0.2.1"', "txt_ttl = 5", 'hostmaster = "h@example.com"'])
def test_zone_settings_below_the_nameservers(file: Path, misplaced: str) -> None:
    """TOML counts a line below the heading of a table to that table. Only this is reported."""
    text = "\n".join(line for line in ZONE.splitlines() if not line.startswith(misplaced.split()[0]))
    key = misplaced.split()[0]

    (fault,) = faults(file, f"{text}\n{misplaced}\n")
    assert fault == (
        f"zones[0].nameservers: {key} is a setting of the zone, and belongs above [zones.nameservers]: in TOML, all "
        "lines below that heading are nameservers"
    )


def zone(**keys: object) -> ZoneSettings:
    """The example zone with other *keys*."""
    nameservers = {"ns1.acme.example.com": ["192.0.2.1"]}
    return ZoneSettings.model_validate(
        {"name": "acme.example.com", "hostmaster": "hostmaster@example.com", "nameservers": nameservers} | keys
    )


def text(settings: ZoneSettings) -> list[str]:
    """The static part of a zone as zone text."""
    return [line for rrset in settings.static.rrsets for line in print_rrset(rrset).splitlines()]


# ---- files that we ship ----


def test_example_shows_the_defaults() -> None:
    """The example is valid, and what it shows is what holds without it."""
    example = load(EXAMPLE, {})
    bare = Settings(zones=(zone(nameservers=example.zones[0].nameservers),))

    assert example.model_copy(update={"zones": bare.zones}) == bare
    assert example.zones[0].model_copy(update={"records": ""}) == bare.zones[0]


def test_example_shows_every_key() -> None:
    """The example leaves out nothing that can be set, and explains each key in a comment right above it."""
    shown = tomllib.loads(EXAMPLE.read_text("utf-8"))
    sections: dict[str, type[BaseModel]] = {
        name: type(field.default) for name, field in Settings.model_fields.items() if name != "zones"
    }

    assert shown.keys() == Settings.model_fields.keys()
    assert shown["zones"][0].keys() == ZoneSettings.model_fields.keys()
    assert {name: shown[name].keys() for name in sections} == {
        name: section.model_fields.keys() for name, section in sections.items()
    }
    assert re.findall(r"^(?!#)[^\n]*\n(\w+) =", EXAMPLE.read_text("utf-8"), re.MULTILINE) == []


def test_example_records_are_valid() -> None:
    """The records that the example shows in comments may be switched on as they are."""
    records = tomllib.loads(EXAMPLE.read_text("utf-8"))["zones"][0]["records"].replace("; ", "", 2)

    assert text(zone(records=records))[3:5] == [
        "api.acme.example.com. 3600 IN A 192.0.2.1",
        'api.acme.example.com. 3600 IN CAA 0 issue "letsencrypt.org"',
    ]


def test_dev() -> None:
    """The settings of `make run` need no privileges and stay on this machine."""
    settings = load(ROOT / "config" / "dev.toml", {})

    assert [str(zone.name) for zone in settings.zones] == ["acme.example.com"]
    assert settings.dns.listen == (Endpoint("127.0.0.1", 5300),)
    assert settings.api.listen == (Endpoint("127.0.0.1", 8053),)
    assert settings.admin.listen == (Endpoint("127.0.0.1", 8054),)
    assert settings.database.url == "sqlite+aiosqlite:///.dev/responder.db"
    assert settings.database.auto_upgrade


# ---- file and environment ----


def test_environment_beats_file(file: Path) -> None:
    """A variable replaces the file's key and leaves its neighbours alone."""
    settings = read(
        file,
        ZONE + '[values]\nlifetime = "1h"\nmax_lifetime = 7200\n[dns]\nlisten = ["127.0.0.1:53"]\n',
        RESPONDER_VALUES__LIFETIME="90s",
        RESPONDER_DNS__LISTEN='["127.0.0.1:0", "[::1]:0"]',
        RESPONDER_DNS__PROCESSES="4",
        RESPONDER_DATABASE__AUTO_UPGRADE="true",
        RESPONDER_LOG='{"level": "debug"}',
    )

    assert (settings.values.lifetime, settings.values.max_lifetime) == (90, 7200)
    assert (settings.dns.listen, settings.dns.processes) == ((Endpoint("127.0.0.1", 0), Endpoint("::1", 0)), 4)
    assert settings.database.auto_upgrade
    assert settings.log.level == "debug"


@pytest.mark.usefixtures("file")
def test_environment_alone() -> None:
    """Zones in the environment make a file unnecessary."""
    assert load(None, {"RESPONDER_ZONES": ZONES}).zones == (zone(),)


def test_places(file: Path, tmp_path: Path) -> None:
    """--config is looked at first, then the variable, then the working directory, then the system's."""
    places = [tmp_path / "option.toml", tmp_path / "variable.toml", file, tmp_path / "etc" / "responder.toml"]
    (tmp_path / "etc").mkdir()
    for processes, place in enumerate(places, 1):
        place.write_text(f"{ZONE}[dns]\nprocesses = {processes}\n")

    assert load(places[0], {"RESPONDER_CONFIG": str(places[1])}).dns.processes == 1
    assert load(None, {"RESPONDER_CONFIG": str(places[1])}).dns.processes == 2
    assert load(None, {"RESPONDER_CONFIG": ""}).dns.processes == 3
    file.unlink()
    assert load(None, {}).dns.processes == 4


@pytest.mark.usefixtures("file")
def test_no_file(tmp_path: Path) -> None:
    """If there is nothing to read, the fault says where it was looked for and what to do."""
    with pytest.raises(InvalidConfiguration) as caught:
        load(None, {})

    assert caught.value.faults == (
        (
            f"there is no responder.toml or {tmp_path}/etc/responder.toml: "
            "copy config/responder.example.toml there, or name a file with --config"
        ),
    )


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: is a directory"),
        (b"zones = \xff", "is not UTF-8 text"),
        (b"zones = [", "the file is not TOML: Invalid value (at end of document)"),
    ],
)
def test_bad_file(file: Path, content: bytes | None, fault: str) -> None:
    """A file that cannot be read is one clear fault."""
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)

    with pytest.raises(InvalidConfiguration) as caught:
        load(file, {})

    (reported,) = caught.value.faults
    assert f"{file}: {fault}" == (f"{caught.value.file}: {reported}" if caught.value.file else reported)


def test_missing_file(file: Path) -> None:
    """A file that was asked for must exist, whatever the environment holds."""
    with pytest.raises(InvalidConfiguration) as caught:
        load(file, {"RESPONDER_ZONES": ZONES})

    assert caught.value.faults == (f"{file}: cannot be read: no such file or directory",)


def test_file_in_forbidden_place(file: Path) -> None:
    """A place that cannot be looked into is not taken for an empty one."""
    file.symlink_to(file)

    with pytest.raises(InvalidConfiguration) as caught:
        load(None, {})

    assert caught.value.faults == ("responder.toml: cannot be read: too many levels of symbolic links",)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("kind", ["file", "symbolic link", "symbolic link of ours", "open to all"])
def test_file_of_another_user(file: Path, tmp_path: Path, kind: str) -> None:
    """A file that merely lies in the working directory is refused if another user could have put it there."""
    theirs = tmp_path / "theirs.toml"
    theirs.write_text(ZONE)
    if kind == "file":
        theirs.rename(file)
        os.chown(file, STRANGER, -1)
    elif kind == "symbolic link":
        file.symlink_to(theirs)
        os.chown(file, STRANGER, -1, follow_symlinks=False)
    elif kind == "symbolic link of ours":
        file.symlink_to(theirs)
        os.chown(theirs, STRANGER, -1)
    else:
        theirs.rename(file)
        file.chmod(0o666)

    with pytest.raises(InvalidConfiguration) as caught:
        load(None, {})

    fault = "another user can write it: if you trust it, name it with --config"
    assert caught.value.faults == (f"responder.toml: cannot be read: {fault}",)
    assert load(Path("responder.toml"), {}).zones == load(None, {"RESPONDER_CONFIG": "responder.toml"}).zones


def test_file_that_is_a_link(file: Path, tmp_path: Path) -> None:
    """A symbolic link of ours to a file of ours is as good as the file."""
    place = tmp_path / "elsewhere.toml"
    place.write_text(ZONE)
    file.symlink_to(place)

    assert load(None, {}).zones == (zone(),)


def test_unknown_variables(file: Path) -> None:
    """A variable of ours that sets nothing is a fault, with a guess at what was meant if one is near."""
    variables = {
        "RESPONDER_CONFIG": "x",
        "RESPONDER_REQUIRE_ALL": "1",
        "RESPONDER_DATABASE_URL": "x",
        "RESPONDER_DNS__PORT": "53",
        "RESPONDER_DNS__LISTEN__0": "x",
        "RESPONDER_FOO": "x",
        "RESPONDER_TLS": "x",
        "RESPONDER_XYZZY": "x",
        "RESPONDER_ZONES__0__NAME": "x",
        "OTHER_URL": "x",
    }

    assert faults(file, ZONE, **variables) == (
        "RESPONDER_DATABASE_URL: there is no such setting: did you mean RESPONDER_DATABASE__URL?",
        "RESPONDER_DNS__LISTEN__0: there is no such setting: did you mean RESPONDER_DNS__LISTEN?",
        "RESPONDER_DNS__PORT: there is no such setting: see config/responder.example.toml",
        "RESPONDER_FOO: there is no such setting: see config/responder.example.toml",
        "RESPONDER_TLS: there is no such setting: see config/responder.example.toml",
        "RESPONDER_XYZZY: there is no such setting: see config/responder.example.toml",
        "RESPONDER_ZONES__0__NAME: there is no such setting: did you mean RESPONDER_ZONES?",
    )


def test_variables_of_kubernetes(file: Path) -> None:
    """Variables that Kubernetes makes of Services called like us are none of ours."""
    variables = {
        "RESPONDER_SERVICE_HOST": "192.0.2.1",
        "RESPONDER_SERVICE_PORT": "53",
        "RESPONDER_SERVICE_PORT_DNS_TCP": "53",
        "RESPONDER_PORT": "udp://192.0.2.1:53",
        "RESPONDER_PORT_53_UDP": "udp://192.0.2.1:53",
        "RESPONDER_PORT_53_UDP_ADDR": "192.0.2.1",
        "RESPONDER_API_SERVICE_HOST": "192.0.2.1",
        "RESPONDER_API_PORT_443_TCP_PROTO": "tcp",
    }

    assert read(file, ZONE, **variables).zones == (zone(),)


# ---- faults ----


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "zones: there is no zone: write [[zones]] as in config/responder.example.toml"),
        ("zones = []", "zones: must not be empty"),
        (
            "zones = 1",
            "zones: must be [[zones]] as in config/responder.example.toml; in the environment, a list in JSON",
        ),
        ("zones = [1]", "zones[0]: must be a table"),
        (ZONE + "[dn]", "dn: there is no such setting: did you mean dns?"),
        (ZONE + "[dsn]", "dsn: there is no such setting: did you mean dns?"),
        (ZONE + "[xyzzy]", "xyzzy: there is no such setting: see config/responder.example.toml"),
        (ZONE + "[nameservers]", "nameservers: there is no such setting: it is a setting of [[zones]]: move it there"),
        (
            ZONE + "[dns.rate_limit]\nprocesses = 2",
            "dns.rate_limit.processes: there is no such setting: it is a setting of [dns]: move it there",
        ),
        (ZONE + "[apis]", "apis: there is no such setting: did you mean api?"),
        (ZONE + "[dns]\nlistens = 1", "dns.listens: there is no such setting: did you mean listen?"),
        (ZONE + "[dns]\nlisten = 53", 'dns.listen: must be a list, as in ["..."]; in the environment, in JSON'),
        (ZONE + "[dns]\nlisten = []", "dns.listen: must not be empty"),
        (ZONE + "[dns]\nlisten = [53]", "dns.listen[0]: must be text in quotes"),
        (ZONE + '[dns]\nlisten = ["0.0.0.0"]', 'dns.listen[0]: "0.0.0.0" has no port: write "0.0.0.0:53"'),
        (ZONE + '[api]\nlisten = ["[::]"]', 'api.listen[0]: "[::]" has no port: write "[::]:443"'),
        (ZONE + '[admin]\nlisten = ["::1"]', 'admin.listen[0]: "::1" has no port: write "[::1]:8054"'),
        (ZONE + "[dns]\nprocesses = 0", "dns.processes: must be greater than or equal to 1"),
        (ZONE + "[dns]\nprocesses = 65", "dns.processes: must be less than or equal to 64"),
        (ZONE + "[dns]\nprocesses = true", "dns.processes: must be a number"),
        (ZONE + '[dns]\nprocesses = "x"', "dns.processes: must be a number"),
        (ZONE + '[api]\ntls = "on"', "api.tls: must be 'off', 'files' or 'acme'"),
        (
            ZONE + '[api]\ntls = "acme"',
            'api.hostname: is missing: with api.tls = "acme", write the name by which clients reach the API',
        ),
        (
            ZONE + '[api]\ntls = "acme"\nhostname = "api.example.com"',
            'api.hostname: "api.example.com" must be a name below a zone of ours, such as "api.acme.example.com"',
        ),
        (
            ZONE + '[api]\ntls = "acme"\nhostname = "acme.example.com"',
            'api.hostname: "acme.example.com" must be a name below a zone of ours, such as "api.acme.example.com"',
        ),
        (
            ZONE.replace("[zones.n", 'records = "api CNAME ns1"\n[zones.n')
            + '[api]\ntls = "acme"\nhostname = "api.acme.example.com"',
            'api.hostname: "api.acme.example.com" is a CNAME in the records of its zone: give it addresses instead',
        ),
        (
            ZONE + '[api]\ntls = "acme"\nhostname = "api.acme.example.com"',
            'api.hostname: "api.acme.example.com" has no address in the records of its zone: add one to zones.records',
        ),
        (
            ZONE + '[api]\nhostname = "*.example.com"',
            'api.hostname: "*.example.com" is not the name of a host: write it like "responder.example.com"',
        ),
        (
            ZONE + '[api]\nhostname = "https://api.example.com/"',
            'api.hostname: "https://api.example.com/" is not the name of a host: write it like "api.example.com"',
        ),
        (
            ZONE + '[api]\ntls = "files"\ncertificate_file = "/tls.crt"',
            'api.private_key_file: is missing: with api.tls = "files", write the path of the file in PEM',
        ),
        (
            ZONE + '[api]\ncertificate_file = "/tls.crt"',
            'api.certificate_file: needs api.tls = "files": set that, or remove this setting',
        ),
        (
            ZONE + "[api]\nproxy_protocol = true",
            "api.proxy_protocol: lets only trusted proxies connect: name their networks in api.trusted_proxies",
        ),
        (
            ZONE + '[api]\nforwarded_header = "X-Forwarded-For:"',
            'api.forwarded_header: "X-Forwarded-For:" is not the name of a header: write one like "X-Forwarded-For"',
        ),
        (
            ZONE + "[api]\nhsts = 600",
            "api.hsts: needs TLS in the API itself: set api.tls, or let the proxy send the header",
        ),
        (
            ZONE + '[api.acme]\ndirectory = "letsencrpt"',
            (
                'api.acme.directory: "letsencrpt" is not a CA: write letsencrypt, letsencrypt-staging, or '
                "the https:// URL of its ACME directory"
            ),
        ),
        (
            ZONE + '[api.acme]\ndirectory = "http://ca.example/dir"',
            (
                'api.acme.directory: "http://ca.example/dir" is not a CA: write letsencrypt, letsencrypt-staging, or '
                "the https:// URL of its ACME directory"
            ),
        ),
        (
            ZONE + '[api.acme]\ncontact = "mailto:a@b,c@d"',
            'api.acme.contact: "mailto:a@b,c@d" is not an e-mail address: write one like "admin@example.com"',
        ),
        (
            ZONE + '[api.acme]\neab_kid = "x"',
            "api.acme.eab_hmac_key_file: needs api.acme.eab_kid, and vice versa: write both, as the CA shows them",
        ),
        (
            ZONE + '[api.acme]\neab_hmac_key_file = "/x"',
            "api.acme.eab_hmac_key_file: needs api.acme.eab_kid, and vice versa: write both, as the CA shows them",
        ),
        (
            ZONE + "[api.acme]\ncaa = '0 issue \"ca.example.net\"'",
            (
                "api.acme.caa: must be as in a CAA record, without quotes, such as "
                '"ca.example.net; validationmethods=dns-01"'
            ),
        ),
        (
            ZONE + '[dns.update]\nalgorithms = ["hmac-sha3"]',
            (
                "dns.update.algorithms[0]: must be 'hmac-sha256', 'hmac-sha384', 'hmac-sha512', 'hmac-sha224', "
                "'hmac-sha1' or 'hmac-md5'"
            ),
        ),
        (ZONE + "[dns.update]\nalgorithms = []", "dns.update.algorithms: must not be empty"),
        (ZONE + '[log]\nformat = "xml"', "log.format: must be 'auto', 'json' or 'text'"),
        (ZONE + "[log]\nlevel = 3", "log.level: must be 'debug', 'info', 'warning' or 'error'"),
        (
            ZONE + '[values]\nlifetime = "soon"',
            'values.lifetime: "soon" is not a time: write seconds, or a number with s, m, h, d or w, as in "24h"',
        ),
        (ZONE + "[values]\nlifetime = 0", "values.lifetime: must be greater than or equal to 1"),
        (ZONE + "[values]\nlifetime = 1.5", 'values.lifetime: must be seconds, or text like "24h"'),
        (
            ZONE + '[values]\nlifetime = "8d"',
            "values.max_lifetime: is less than values.lifetime: raise it, or lower values.lifetime",
        ),
        (
            ZONE + "[database]\nauto_upgrade = 2",
            "database.auto_upgrade: must be a valid boolean, unable to interpret input",
        ),
        (
            ZONE + '[admin]\nlisten = ["0.0.0.0:443"]',
            'admin.listen[0]: "0.0.0.0:443" is api.listen[0] already: change or remove one',
        ),
        (
            ZONE + '[dns]\nlisten = ["[::1]:53", "[0::1]:53", "[::1]:0", "[::1]:0"]',
            'dns.listen[1]: "[::1]:53" is dns.listen[0] already: change or remove one',
        ),
        (
            ZONE + ZONE,
            "zones[1].name: acme.example.com overlaps acme.example.com of zones[0]: remove one of them",
        ),
        (
            ZONE + ZONE.replace("acme.", "x.acme."),
            "zones[1].name: x.acme.example.com overlaps acme.example.com of zones[0]: remove one of them",
        ),
    ],
)
def test_fault(file: Path, text: str, fault: str) -> None:
    """A fault says where it is, what it is, and how to mend it."""
    assert faults(file, text) == (fault,)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ('name = "a..b"', "name: 'a..b' has an empty label (two dots in a row, or a dot at its start)"),
        ('name = "."', 'name: "." cannot be a zone here: write the name that the zone above delegates to this server'),
        (
            'name = "*.b"',
            'name: "*.b" cannot be a zone here: write the name that the zone above delegates to this server',
        ),
        ("name = 1", "name: must be text in quotes"),
        ('name = 1\nrecords = "a A 1"', "name: must be text in quotes"),
        ("", "name: is missing"),
        ("hostmaster = 1", "hostmaster: must be text in quotes"),
        (
            'hostmaster = "example.com"',
            "hostmaster: 'example.com' is not an e-mail address: write it like \"hostmaster@example.com\"",
        ),
        ("txt_ttl = -1", "txt_ttl: must be greater than or equal to 0"),
        ('soa_ttl = "2d"', "soa_ttl: must be less than or equal to 86400"),
        ("negative_ttl = 301", "negative_ttl: must be less than or equal to 300"),
        ("static_ttl = true", 'static_ttl: must be seconds, or text like "24h"'),
        ("static_tll = 1", "static_tll: there is no such setting: did you mean static_ttl?"),
        ("records = 1", "records: must be a valid string"),
        ('records = "a A 1"', "records: line 1: the data of this A is malformed: write it like A 192.0.2.1"),
        (
            'records = "ns1 AAAA ::1"',
            (
                'nameservers: "ns1.acme.example.com" gets its addresses from [zones.nameservers]: '
                "remove its AAAA from records"
            ),
        ),
        (
            'records = "ns1 CNAME a"',
            (
                'nameservers: "ns1.acme.example.com" has a CNAME in records, but no nameserver may '
                "(RFC 2181, section 10.3): remove it"
            ),
        ),
        ("nameservers = 1", "nameservers: must be a table"),
        (
            "nameservers = {}",
            'nameservers: there is no nameserver: write "ns1.acme.example.com" = ["ITS PUBLIC ADDRESS"]',
        ),
        (
            'nameservers = { "a..b" = [] }',
            "nameservers.\"a..b\": 'a..b' has an empty label (two dots in a row, or a dot at its start)",
        ),
        (
            'nameservers = { "ns.example" = ["x"] }',
            'nameservers."ns.example"[0]: "x" is not an IP address: write one like "192.0.2.1" or "2001:db8::1"',
        ),
        (
            'nameservers = { "acme.example.com" = [] }',
            (
                'nameservers: "acme.example.com" is inside the zone and has no address: '
                'write "acme.example.com" = ["ITS PUBLIC ADDRESS"]'
            ),
        ),
        (
            'nameservers = { "ns.example" = ["192.0.2.1"] }',
            (
                'nameservers: "ns.example" is outside the zone, so its addresses cannot be set here: '
                'write "ns.example" = []'
            ),
        ),
    ],
)
def test_fault_in_zone(file: Path, keys: str, fault: str) -> None:
    """A fault in a zone says which zone and key, and for records which line."""
    key = keys.partition(" ")[0] or "name"
    replaced = re.sub(rf"(?m)^(\[zones\.)?{key}\b[^\0]*?(?=\n\[|\n\w|\Z)", "", ZONE)
    text = replaced.replace("[[zones]]", f"[[zones]]\n{keys}")

    assert faults(file, text) == (f"zones[0].{fault}",)


def test_all_faults_at_once(file: Path) -> None:
    """File, environment, zones and sections: one round of mending is enough."""
    text = """
    typo = 1
    [[zones]]
    name = "acme.example.com"
    hostmaster = "nobody"
    records = '''
    a A 1
    b NS c
    '''
    [[zones]]
    name = "x.acme.example.com"
    [dns]
    listen = ["0.0.0.0", "192.0.2.1:53", "192.0.2.1:53"]
    """

    assert faults(file, text, RESPONDER_API__TLS="on", RESPONDER_DNS__X="1", RESPONDER_LOG="x") == (
        "zones[0].hostmaster: 'nobody' is not an e-mail address: write it like \"hostmaster@example.com\"",
        (
            "zones[0].records: line 1: the line starts with a space, "
            "so it has the owner of the line above, but that has no valid owner"
        ),
        (
            "zones[0].records: line 2: the line starts with a space, "
            "so it has the owner of the line above, but that has no valid owner"
        ),
        'zones[0].nameservers: there is no nameserver: write "ns1.acme.example.com" = ["ITS PUBLIC ADDRESS"]',
        "zones[1].hostmaster: is missing",
        'zones[1].nameservers: there is no nameserver: write "ns1.x.acme.example.com" = ["ITS PUBLIC ADDRESS"]',
        'dns.listen[0]: "0.0.0.0" has no port: write "0.0.0.0:53"',
        "RESPONDER_API__TLS (api.tls): must be 'off', 'files' or 'acme'",
        "RESPONDER_LOG (log): must be a table",
        "typo: there is no such setting: see config/responder.example.toml",
        "RESPONDER_DNS__X: there is no such setting: see config/responder.example.toml",
        "zones[1].name: x.acme.example.com overlaps acme.example.com of zones[0]: remove one of them",
        'dns.listen[2]: "192.0.2.1:53" is dns.listen[1] already: change or remove one',
    )


def test_fault_within_a_section_names_its_variable(file: Path) -> None:
    """What is found out by looking at two sections is still reported where it was written."""
    (fault,) = faults(file, ZONE, RESPONDER_API__TLS="acme", RESPONDER_API__HOSTNAME="api.example.com")

    assert fault.startswith('RESPONDER_API__HOSTNAME (api.hostname): "api.example.com" must be a name below a zone')


# ---- fields ----


@pytest.mark.parametrize(
    ("text", "endpoint", "printed"),
    [
        ("192.0.2.1:53", Endpoint("192.0.2.1", 53), "192.0.2.1:53"),
        ("[::]:53", Endpoint("::", 53), "[::]:53"),
        ("[2001:DB8:0::1]:65535", Endpoint("2001:db8::1", 65535), "[2001:db8::1]:65535"),
        ("127.0.0.1:0", Endpoint("127.0.0.1", 0), "127.0.0.1:0"),
    ],
)
def test_endpoint(text: str, endpoint: Endpoint, printed: str) -> None:
    """An address and a port, in brackets if it is IPv6."""
    assert Endpoint.parse(text) == endpoint
    assert str(endpoint) == printed


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0.0.0.0", '"0.0.0.0" has no port: write "0.0.0.0:53"'),
        ("::1", '"::1" has no port: write "[::1]:53"'),
        (
            "::1:53",
            '"::1:53" is ambiguous: write IPv6 addresses in brackets, as in "[::1]:53" or "[::1:53]:53"',
        ),
        ("fe80:::53", '"fe80:::53" is ambiguous: write IPv6 addresses in brackets, as in "[::1]:53"'),
        ("localhost:53", '"localhost:53" does not start with an IP address: write one, as in "127.0.0.1:53"'),
        (":53", '":53" does not start with an IP address: write one, as in "127.0.0.1:53"'),
        ("", '"" does not start with an IP address: write one, as in "127.0.0.1:53"'),
        ("127.0.0.1:", '"127.0.0.1:" does not end with a port: write "127.0.0.1:53"'),
        ("127.0.0.1:65536", '"127.0.0.1:65536" does not end with a port: write "127.0.0.1:53"'),
        *(
            (
                text,
                (
                    f'"{text}" has an interface after "%", which is not supported: write an address without it, '
                    'such as "[::]:53", which includes link-local addresses'
                ),
            )
            for text in ("[fe80::1%eth0]:53", "fe80::1%eth0", "fe80::1%eth0:53")
        ),
        ("[::1]:-1", '"[::1]:-1" does not end with a port: write "[::1]:53"'),
    ],
)
def test_endpoint_refuses(text: str, fault: str) -> None:
    """What is no address with a port is refused, and the text shows one that is."""
    with pytest.raises(Invalid) as caught:
        Endpoint.parse(text)

    assert str(caught.value) == fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:53", "127.0.0.1:53"),
        ("[::]:53", "[::1]:53"),
        ("192.0.2.1:53", "192.0.2.1:53"),
        ("[2001:db8::1]:5300", "[2001:db8::1]:5300"),
    ],
)
def test_reachable_endpoint(text: str, expected: str) -> None:
    """Programs on this machine find a listener where it listens; for all addresses of the machine, that is its own."""
    assert expected == str(Endpoint.parse(text).reachable)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("90", 90), ("90s", 90), ("15m", 900), ("24h", 86400), ("7d", 604800), ("2w", 1209600)],
)
def test_parse_duration(text: str, seconds: int) -> None:
    """A number of seconds, or of the unit behind it."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "1.5h", "-1", "1 h", "1y", "1_0", "9" * 10])
def test_parse_duration_refuses(text: str) -> None:
    """Anything else is no time."""
    with pytest.raises(Invalid, match="is not a time: write seconds"):
        parse_duration(text)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:////var/lib/responder/responder.db",
        "sqlite+aiosqlite:///responder.db",
        "postgresql+asyncpg://responder:a%3Fb@db.example.com:5432/responder",
        "postgresql+asyncpg://db/responder?ssl=require",
        "postgresql+asyncpg:///responder?host=/run/postgresql",
        "postgresql+asyncpg://u:p/w@[2001:db8::1]:5432/responder",
    ],
)
def test_database_url(file: Path, url: str) -> None:
    """SQLite in a file, and PostgreSQL."""
    assert read(file, ZONE, RESPONDER_DATABASE__URL=url).database.url == url


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        (
            "sqlite:///x",
            (
                'is not a URL of a supported database: write "sqlite+aiosqlite:////var/lib/responder/responder.db" '
                'or "postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE"'
            ),
        ),
        (
            "postgres://u:SECRET@h/d",
            (
                'is not a URL of a supported database: write "sqlite+aiosqlite:////var/lib/responder/responder.db" '
                'or "postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE"'
            ),
        ),
        *(
            (
                url,
                (
                    'names no file: write "sqlite+aiosqlite:////var/lib/responder/responder.db", '
                    "or three slashes before a relative path"
                ),
            )
            for url in (
                "sqlite+aiosqlite://",
                "sqlite+aiosqlite:///",
                "sqlite+aiosqlite://x",
                "sqlite+aiosqlite:///:memory:",
            )
        ),
        *(
            (url, 'has a "?" after the path, but SQLite takes no options here: remove it and what follows')
            for url in ("sqlite+aiosqlite:////x.db?mode=ro", "sqlite+aiosqlite:///x.db?")
        ),
        *(
            (
                url,
                (
                    'names no database: write "postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE", '
                    "with %XX for special characters in it"
                ),
            )
            for url in (
                "postgresql+asyncpg://",
                "postgresql+asyncpg://h",
                "postgresql+asyncpg://h/",
                "postgresql+asyncpg://h:x/d",
                "postgresql+asyncpg://u:SECRET?@h/d",
                "postgresql+asyncpg://u:SE@CR@ET@h/d",
                "postgresql+asyncpg://u:SECRET/@@h/d",
                "postgresql+asyncpg://u:SE@CR/ET@h",
                "postgresql+asyncpg://u@u:SECRET@h/d",
                "postgresql+asyncpg://u/u:SECRET@h/d",
            )
        ),
    ],
)
def test_database_url_refuses(file: Path, url: str, fault: str) -> None:
    """Other databases, and URLs that name none, are refused without showing the password."""
    assert faults(file, f'{ZONE}[database]\nurl = "{url}"') == (f"database.url: {fault}",)


@pytest.mark.parametrize("rate", ["0/minute", "10/minute;5/second", "-5/minute", "1/fortnight", ""])
def test_rates_that_are_none(file: Path, rate: str) -> None:
    """Nought would lock everybody out, and of several rates only the first would count."""
    fault = f'api.limits.per_token: "{rate}" is not a rate: write one like "100/minute"'
    assert faults(file, f'{ZONE}[api.limits]\nper_token = "{rate}"') == (fault,)


# ---- zones ----


def test_nameserver_that_is_there_twice(file: Path) -> None:
    """Two spellings of one name are a fault beside all others, in the file and in the environment."""
    again = '"NS1.acme.example.com." = ["192.0.2.2"]\n"ns2.acme.example.com" = ["x"]\n'
    fault = (
        'zones[0].nameservers: "ns1.acme.example.com" and "NS1.acme.example.com." are the same name: '
        "write it once, with all its addresses"
    )
    zones = json.dumps(tomllib.loads(ZONE + again)["zones"])

    found = faults(file, ZONE + again)

    assert fault in found
    assert 2 == len(found)
    assert fault in faults(file, "", RESPONDER_ZONES=zones)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("ns1", 'has one label only, and names here are written whole: write "ns1.acme.example.com"'),
        ("192.0.2.1", 'is an address, and a nameserver needs a name: write "ns1.acme.example.com" = ["192.0.2.1"]'),
        ("2001:db8::1", 'is an address, and a nameserver needs a name: write "ns1.acme.example.com" = ["2001:db8::1"]'),
        (
            "localhost",
            'is another machine for everyone else: write "ns1.acme.example.com" = ["ITS PUBLIC ADDRESS"]',
        ),
        ("https://ns1.example.com/", 'is not the name of a host: write "ns1.example.com"'),
        ("ns1.example.com:53", 'is not the name of a host: write "ns1.example.com"'),
        *(
            (name, 'is not the name of a host, which has only letters, digits and hyphens: write it like "ns1.{apex}"')
            for name in ("*.acme.example.com", "ns_1.example.com", "-ns.example.com", "_ns")
        ),
    ],
)
def test_nameserver_that_is_not_a_host(file: Path, name: str, fault: str) -> None:
    """A name that no host can have is refused, with the name that was probably meant."""
    assert faults(file, f'{ZONE}"{name}" = []\n') == (
        f'zones[0].nameservers: "{name}" {fault.format(apex="acme.example.com")}',
    )


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("https://acme.example.com", 'is not the name of a zone: write "acme.example.com"'),
        ("192.0.2.1", "cannot be a zone here: write the name that the zone above delegates to this server"),
    ],
)
def test_zone_that_is_no_name(file: Path, name: str, fault: str) -> None:
    """A URL or an address in place of the zone's name is refused."""
    assert f'zones[0].name: "{name}" {fault}' in faults(file, ZONE.replace('"acme.example.com"', f'"{name}"', 1))


def test_nameservers_that_no_reply_can_hold(file: Path) -> None:
    """So many addresses of one nameserver, or nameservers, would be an empty answer even over TCP."""
    addresses = [f"2001:db8::{n:x}" for n in range(3000)]
    names = "".join(f'"{"n" * 60}{n:x}.example.net" = []\n' for n in range(800))
    zone = ZONE + f'"ns2.acme.example.com" = {json.dumps(addresses)}\n' + names

    assert faults(file, zone) == (
        'zones[0].nameservers: no reply can hold the 802 NS records of "acme.example.com": remove some of them',
        'zones[0].nameservers: no reply can hold the 3000 AAAA records of "ns2.acme.example.com": remove some of them',
    )


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", ""),
        ("https://responder.example.com", "https://responder.example.com"),
        ("http://192.0.2.1:8053/", "http://192.0.2.1:8053"),
        ("https://[2001:db8::1]/base//", "https://[2001:db8::1]/base"),
    ],
)
def test_api_url(file: Path, text: str, url: str) -> None:
    """A URL with or without a path; a slash at its end is dropped, so that clients do not send two."""
    assert read(file, ZONE, RESPONDER_API__URL=text).api.url == url


@pytest.mark.parametrize(
    "text",
    [
        "responder.example.com",
        "ftp://responder.example.com",
        "https://",
        "https://:443",
        "https://x:port",
        "https://x:0",
        "https://[::1",
        "https://me:secret@x",
        "https://x/?y",
        "https://x/#y",
        "https://x/ y",
        "https://x\n",
        "https://\u00e4.example",
    ],
)
def test_api_url_refuses(file: Path, text: str) -> None:
    """What no path can be put behind, and what holds a password or characters that a URL cannot hold."""
    with pytest.raises(InvalidConfiguration, match=r'is not a URL such as "https://responder.example.com"'):
        read(file, ZONE, RESPONDER_API__URL=text)


def test_static() -> None:
    """SOA, NS and glue come from the settings, then the records; without a CAA at the apex nobody may issue."""
    settings = zone(
        hostmaster="host.master@example.com",
        soa_ttl=6,
        negative_ttl=7,
        static_ttl=8,
        txt_ttl=9,
        records="api 60 A 192.0.2.9\napi CAA 0 issue ca.example",
        nameservers={
            "ns1.acme.example.com": ["2001:db8::1", "192.0.2.1", "192.0.2.1", "192.0.2.2"],
            "ns2.example.net": [],
        },
    )

    assert text(settings) == [
        r"acme.example.com. 6 IN SOA ns1.acme.example.com. host\.master.example.com. 0 14400 3600 1209600 7",
        "acme.example.com. 8 IN NS ns1.acme.example.com.",
        "acme.example.com. 8 IN NS ns2.example.net.",
        "ns1.acme.example.com. 8 IN A 192.0.2.1",
        "ns1.acme.example.com. 8 IN A 192.0.2.2",
        "ns1.acme.example.com. 8 IN AAAA 2001:db8::1",
        "api.acme.example.com. 60 IN A 192.0.2.9",
        'api.acme.example.com. 8 IN CAA 0 issue "ca.example"',
        'acme.example.com. 8 IN CAA 0 issue ";"',
    ]
    assert (settings.static.apex, settings.static.txt_ttl) == (Name.parse("acme.example.com"), 9)


def test_static_with_caa() -> None:
    """A CAA at the apex is the administrator's word, to which nothing is added."""
    caa = [line for line in text(zone(records="@ CAA 0 issue ca.example")) if " CAA " in line]

    assert caa == ['acme.example.com. 3600 IN CAA 0 issue "ca.example"']


ACME = '[api]\ntls = "acme"\nhostname = "ns1.acme.example.com"\n'


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", "letsencrypt.org; validationmethods=dns-01"),
        ('[api.acme]\ndirectory = "letsencrypt-staging"', "letsencrypt.org; validationmethods=dns-01"),
        (
            '[api.acme]\ndirectory = "https://acme-v02.api.letsencrypt.org/directory"',
            "letsencrypt.org; validationmethods=dns-01",
        ),
        ('[api.acme]\ndirectory = "https://ca.example/dir"\ncaa = "ca.example; x=y"', "ca.example; x=y"),
    ],
)
def test_caa_of_the_api(file: Path, more: str, expected: str) -> None:
    """The API's own host gets a CAA that lets its CA issue, for that name alone, and for no wildcard."""
    settings = read(file, ZONE + ACME + more)
    (static,) = settings.statics
    caa = [line for rrset in static.rrsets if rrset.type == RRType.CAA for line in print_rrset(rrset).splitlines()]

    assert [] == settings.api.warnings()
    assert caa == [
        'acme.example.com. 3600 IN CAA 0 issue ";"',
        f'ns1.acme.example.com. 3600 IN CAA 0 issue "{expected}"',
        'ns1.acme.example.com. 3600 IN CAA 0 issuewild ";"',
    ]


def test_no_caa_of_the_api(file: Path) -> None:
    """Without need there is no CAA; one in the records is the administrator's word; an unknown CA is pointed out."""
    plain = read(file, ZONE + ACME.replace("acme", "off", 1))
    told = read(file, ZONE.replace("[zones.n", 'records = "ns1 CAA 0 issue ca.example"\n[zones.n') + ACME)
    unknown = read(file, ZONE + ACME + '[api.acme]\ndirectory = "https://ca.example/dir"')

    assert plain.statics == (plain.zones[0].static,)
    assert told.statics == (told.zones[0].static,)
    assert unknown.statics == (unknown.zones[0].static,)
    assert [CAA_WARNING] == unknown.api.warnings()
    assert unknown.warnings()[-1] == CAA_WARNING


def test_warnings(file: Path) -> None:
    """Nameserver addresses that nobody on the Internet can reach are pointed out, but allowed."""
    addresses = ["127.0.0.1", "10.0.0.1", "192.0.2.1", "224.0.0.1", "8.8.8.8", "fd00::1", "2001:db8::1", "2600::1"]
    settings = read(file, ZONE.replace('["192.0.2.1"]', json.dumps(addresses)))

    assert settings.warnings() == [
        f"zones[0].nameservers: {address} of ns1.acme.example.com is not a public address: CAs cannot reach it"
        for address in ("127.0.0.1", "10.0.0.1", "192.0.2.1", "224.0.0.1", "fd00::1", "2001:db8::1")
    ]


# ---- settings as a whole ----


def test_json_form_reads_back(file: Path) -> None:
    """What is handed to another process as JSON is the same settings there."""
    settings = read(file, ZONE + ACME, RESPONDER_DATABASE__URL="postgresql+asyncpg://u:p@h/d")

    assert Settings.model_validate(json.loads(json.dumps(settings.model_dump(mode="json")))) == settings


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+asyncpg://u:SECRET@h:5432/d", "postgresql+asyncpg://u:***@h:5432/d"),
        ("postgresql+asyncpg://u:SECRET/@h/d", "postgresql+asyncpg://u:***@h/d"),
        ("postgresql+asyncpg://u@h/d?password=SECRET&x=y", "postgresql+asyncpg://u@h/d?password=***&x=y"),
        ("sqlite+aiosqlite:///responder.db", "sqlite+aiosqlite:///responder.db"),
    ],
)
def test_effective_hides_the_password(file: Path, url: str, shown: str) -> None:
    """What is shown to people holds every value in force but the database's password."""
    settings = read(file, ZONE, RESPONDER_DATABASE__URL=url)
    effective = settings.effective()

    assert effective == settings.model_dump(mode="json") | {
        "database": {"url": shown, "listen_url": "", "auto_upgrade": False}
    }
    assert "SECRET" not in repr(settings)


@pytest.mark.parametrize("userinfo", ["u:SE@CR@ET", "u@u:SECRET", "u/u:SECRET", "u:SE/CR?ET"])
def test_masked_url(userinfo: str) -> None:
    """Even of a URL that no configuration can have, the password is not shown."""
    shown = DatabaseSettings.model_construct(url=f"postgresql+asyncpg://{userinfo}@h:5432/d").shown_url

    assert f"postgresql+asyncpg://{userinfo.partition(':')[0]}:***@h:5432/d" == shown


@pytest.mark.parametrize(
    ("url", "key_file", "expected"),
    [
        ("sqlite+aiosqlite:////var/lib/responder/responder.db", "", "/var/lib/responder/tsig.key"),
        ("sqlite+aiosqlite:///.dev/responder.db", "", ".dev/tsig.key"),
        ("sqlite+aiosqlite:////var/lib/responder.db", "/etc/responder/tsig.key", "/etc/responder/tsig.key"),
        ("postgresql+asyncpg://u@h/d", "/etc/responder/tsig.key", "/etc/responder/tsig.key"),
    ],
)
def test_key_file(file: Path, url: str, key_file: str, expected: str) -> None:
    """The key file is where the settings say, or else beside the SQLite database."""
    settings = read(file, ZONE, RESPONDER_DATABASE__URL=url, RESPONDER_DNS__UPDATE__KEY_FILE=key_file)

    assert Path(expected) == settings.tsig_key_file


def test_no_key_file(file: Path) -> None:
    """Beside a PostgreSQL database there is no place for one."""
    assert read(file, ZONE, RESPONDER_DATABASE__URL="postgresql+asyncpg://u@h/d").tsig_key_file is None


def test_warning_of_no_key_file(file: Path) -> None:
    """That there are no updates for want of a key file is said, unless nobody wants any."""
    database = {"RESPONDER_DATABASE__URL": "postgresql+asyncpg://u@h/d"}
    warning = (
        "dns.update: DNS updates are disabled: no key file is configured: name one in dns.update.key_file "
        "(the same on every node), or set dns.update.enabled = false"
    )

    assert warning in read(file, ZONE, **database).warnings()
    assert warning not in read(file, ZONE, **database, RESPONDER_DNS__UPDATE__ENABLED="false").warnings()
    assert warning not in read(file, ZONE, **database, RESPONDER_DNS__UPDATE__KEY_FILE="tsig.key").warnings()


def test_settings_are_frozen() -> None:
    """Settings are read once and never change."""
    with pytest.raises(ValidationError):
        setattr(zone(), "txt_ttl", 2)  # noqa: B010


def test_sections_within_sections_from_the_environment(tmp_path: Path) -> None:
    """A key of an inner section has a variable, too, and leaves the others as the file has them."""
    path = tmp_path / "responder.toml"
    path.write_text(EXAMPLE.read_text("utf-8").replace("replies_per_second = 500", "replies_per_second = 7"))

    settings = load(path, {"RESPONDER_DNS__RATE_LIMIT__SLIP": "3"})

    assert (7, 3) == (settings.dns.rate_limit.replies_per_second, settings.dns.rate_limit.slip)
    with pytest.raises(InvalidConfiguration, match=r"RESPONDER_DNS__RATE_LIMIT__SLIP \(dns.rate_limit.slip\)"):
        load(path, {"RESPONDER_DNS__RATE_LIMIT__SLIP": "many"})
