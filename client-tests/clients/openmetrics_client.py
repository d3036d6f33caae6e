"""The reference parsers of Prometheus read /metrics, in both text formats, in many states."""

import sys
import urllib.request

import redis
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

FORMATS = [
    ("application/openmetrics-text; version=1.0.0", openmetrics),
    ("text/plain; version=0.0.4", plain),
]


def scrape(port, is_quiet=True):
    """Families by name, which must be the same in both formats if the server is quiet."""
    read = []
    for accepted, parse in FORMATS:
        url = f"http://127.0.0.1:{port}/metrics"
        request = urllib.request.Request(url, headers={"Accept": accepted})
        with urllib.request.urlopen(request, timeout=30) as reply:
            kind = reply.headers["Content-Type"]
            assert kind.startswith(accepted), kind
            read.append({family.name: family for family in parse(reply.read().decode())})
    one, other = read
    assert one.keys() == other.keys() or not is_quiet, one.keys() ^ other.keys()
    for name, family in one.items():
        assert family.samples and family.documentation, name
        assert name not in other or family.type == other[name].type, name
    return one


def value(families, family, sample=None):
    values = [s.value for s in families[family].samples if s.name == (sample or family)]
    assert len(values) == 1, (family, values)
    return values[0]


def main(port):
    client = redis.Redis(port=port, decode_responses=True)
    metrics = int(client.config_get("metrics-port")["metrics-port"])
    assert len(scrape(metrics)) > 50

    client.config_set("slowlog-log-slower-than", 0)
    client.config_set("latency-monitor-threshold", 1)
    for word in ["NO-SUCH", 'QUO"TE', "BACK\\SLASH", "LINE\nEND", "\xe4"]:
        try:
            client.execute_command("EVAL", "return redis.error_reply(ARGV[1])", 0, word + " x")
        except redis.ResponseError:
            pass
    client.set("key", "value", ex=1000)
    client.hset("hash", "field", "value")
    client.xadd("stream", {"a": 1})
    scrape(metrics)

    client.bgsave()
    while client.info("persistence")["rdb_bgsave_in_progress"]:
        scrape(metrics, is_quiet=False)
    families = scrape(metrics)
    logged = value(families, "cowherd_slowlog_entries", "cowherd_slowlog_entries_total")
    assert logged >= value(families, "cowherd_slowlog_length") > 5
    assert value(families, "redis_slowlog_length") == value(families, "cowherd_slowlog_length")

    client.slowlog_reset()
    client.config_resetstat()
    scrape(metrics)
    print("openmetrics ok")


main(int(sys.argv[1]))
