"""Run in the rival's own environment: time ChannelAttribution on a file of paths, once per line of stdin."""

import contextlib
import json
import os
import sys
import time
from pathlib import Path


def main() -> None:
    """Answer each `order1` or `all` with the seconds it took and the conversions per channel of the chain."""
    with contextlib.redirect_stdout(sys.stderr):  # it prints an advertisement
        import ChannelAttribution
        import pandas as pd
    data = pd.read_csv(sys.argv[1])
    columns = (data, "path", "conversions")
    more = {"var_value": "value", "var_null": "nulls"}
    for line in sys.stdin:
        began = time.perf_counter()
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            if line.strip() == "all":
                ChannelAttribution.heuristic_models(*columns, var_value="value", flg_pro=False)
            found = ChannelAttribution.markov_model(*columns, **more, order=1, verbose=False, flg_pro=False)
        seconds = time.perf_counter() - began
        credit = dict(zip(found["channel_name"], found["total_conversions"].astype(float), strict=True))
        print(json.dumps({"seconds": seconds, "credits": credit}), flush=True)


if __name__ == "__main__":
    main()
