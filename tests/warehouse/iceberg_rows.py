"""Prints the rows of raw.events in Iceberg as text: topic, partition, offset, the event's bytes in hex ("-": null).
Run by the Python of scripts/pyiceberg: iceberg_rows.py DIRECTORY-OF-THE-SOCKET PORT DIRECTORY-OF-THE-FILES."""

import sys
import warnings

warnings.filterwarnings("ignore")  # the sink's catalogue has the first layout, which pyiceberg can read and says so

from pyiceberg.catalog.sql import SqlCatalog  # noqa: E402


def main(socket, port, files):
    catalog = SqlCatalog("sluice", uri=f"postgresql+psycopg2://postgres@/iceberg?host={socket}&port={port}",
                         warehouse=f"file://{files}")
    if ("raw", "events") not in catalog.list_tables("raw"):
        return
    table = catalog.load_table("raw.events")
    for batch in table.scan().to_arrow_batch_reader():
        for row in batch.select(["topic", "part", "off", "event"]).to_pylist():
            event = "-" if row["event"] is None else row["event"].hex()
            print(row["topic"], row["part"], row["off"], event)


if __name__ == "__main__":
    main(*sys.argv[1:])
