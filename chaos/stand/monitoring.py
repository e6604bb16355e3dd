"""Prometheus: scrapes the gateways and the balancer every two seconds."""

from chaos.stand import processes
from chaos.stand.balancer import STATISTICS_PORT
from chaos.stand.gateways import ADMIN_PORT
from chaos.stand.network import HUB

ROLE, PORT = "prometheus", 9090


def configuration(address, zones):
    targets = "".join(f"  - targets: [ '{zone.address}:{ADMIN_PORT}' ]\n"
                      f"    labels: {{ zone: {zone.name}, node: {zone.gateway.name} }}\n" for zone in zones)
    return ("global: { scrape_interval: 2s, scrape_timeout: 1s, evaluation_interval: 5s }\n"
            "scrape_configs:\n"
            f"- job_name: gateway\n  static_configs:\n{targets}"
            f"- job_name: balancer\n  static_configs:\n  - targets: [ '{address}:{STATISTICS_PORT}' ]\n"
            f"- job_name: prometheus\n  static_configs:\n  - targets: [ '{address}:{PORT}' ]\n")


def start(places, address, zones):
    path = places.dir / "prometheus.yml"
    path.write_text(configuration(address, zones))
    command = ["/usr/bin/prometheus", f"--config.file={path}", f"--storage.tsdb.path={places.dir}/prometheus",
               "--storage.tsdb.retention.time=1d", f"--web.listen-address={address}:{PORT}", "--log.level=warn"]
    return processes.spawn(places, ROLE, command, netns=places.netns(HUB))
