"""Certificates of the peers: one CA for each cluster, a certificate for each gateway with its name, by openssl."""

import datetime
import os

from chaos.stand.shell import run

VALID_DAYS = 30


def make_authority(directory):
    directory.mkdir(parents=True, exist_ok=True)
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch",
        "-keyout", directory / "ca.key", "-out", directory / "ca.pem", "-days", VALID_DAYS, "-subj", "/CN=sluice chaos",
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")


def _stamp(moment):
    return moment.strftime("%Y%m%d%H%M%SZ")


def issue(directory, name, begin_days=-1, end_days=VALID_DAYS):
    """<name>.pem and <name>.key, each replaced at one stroke. `begin_days`, `end_days`: from now."""
    now = datetime.datetime.now(datetime.timezone.utc)
    aside = directory / f".{name}"
    aside.mkdir(exist_ok=True)
    (aside / "index").write_text("")
    (aside / "ca.conf").write_text(
        f"[ca]\ndefault_ca=one\n[one]\ndatabase={aside}/index\nrand_serial=yes\nnew_certs_dir={aside}\n"
        "default_md=sha256\npolicy=any\nx509_extensions=leaf\nunique_subject=no\n[any]\ncommonName=supplied\n"
        f"[leaf]\nsubjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\nbasicConstraints=CA:FALSE\n")
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-batch",
        "-keyout", aside / "key", "-out", aside / "request", "-subj", f"/CN={name}")
    run("openssl", "ca", "-batch", "-notext", "-config", aside / "ca.conf", "-keyfile", directory / "ca.key", "-cert",
        directory / "ca.pem", "-in", aside / "request", "-out", aside / "pem",
        "-startdate", _stamp(now + datetime.timedelta(days=begin_days)),
        "-enddate", _stamp(now + datetime.timedelta(days=end_days)))
    os.replace(aside / "key", directory / f"{name}.key")
    os.replace(aside / "pem", directory / f"{name}.pem")
