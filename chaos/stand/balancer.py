"""HAProxy as the network load balancer: TCP, a gateway is in while its /readyz says 200.

A gateway that goes out loses its connections at once, as behind a balancer that deregisters a target; a connection that
cannot be made goes to another one.

Beside the balanced port there is one for each gateway alone, unchecked: the gateways take only connections that a
balancer announces, so whoever wants a certain one comes this way, too.
"""

from chaos.stand import processes
from chaos.stand.gateways import ADMIN_PORT, INGEST_PORT
from chaos.stand.network import HUB

ROLE, PORT, STATISTICS_PORT = "balancer", 8080, 8404
DIRECT_PORT = 8081  # the first zone's, then one each
ANNOUNCED = "send-proxy-v2 proxy-v2-options crc32c"  # the gateways know their clients' addresses


def configuration(places, address, zones):
    servers = "".join(f"  server {zone.gateway.name} {zone.address}:{INGEST_PORT} check port {ADMIN_PORT} {ANNOUNCED}\n"
                      for zone in zones)
    direct = "".join(f"listen {zone.gateway.name}\n  bind {address}:{DIRECT_PORT + number}\n"
                     f"  server {zone.gateway.name} {zone.address}:{INGEST_PORT} {ANNOUNCED}\n"
                     for number, zone in enumerate(zones))
    return (
        "global\n"
        "  nbthread 1\n  maxconn 4000\n  log stdout format raw local0\n"
        f"  stats socket {places.dir}/balancer.sock mode 600 level admin\n"
        "defaults\n"
        "  mode tcp\n  log global\n"
        "  timeout connect 1s\n  timeout client 90s\n  timeout server 90s\n  timeout check 1s\n"
        "  retries 3\n  option redispatch 1\n"
        "frontend ingest\n"
        f"  bind {address}:{PORT}\n  default_backend gateways\n"
        "backend gateways\n"
        "  balance leastconn\n  option httpchk GET /readyz\n"
        "  default-server inter 500ms fastinter 200ms fall 2 rise 2 on-marked-down shutdown-sessions\n"
        f"{servers}{direct}"
        "frontend statistics\n"
        f"  mode http\n  bind {address}:{STATISTICS_PORT}\n"
        "  http-request use-service prometheus-exporter if { path /metrics }\n"
        "  stats enable\n  stats uri /\n  stats refresh 2s\n")


def start(places, address, zones):
    path = places.dir / "haproxy.cfg"
    path.write_text(configuration(places, address, zones))
    return processes.spawn(places, ROLE, ["/usr/sbin/haproxy", "-db", "-f", path], netns=places.netns(HUB))
