"""A process that renders some scenes: `python -m tinyworld.data.rooms.worker ORDER`, told by one JSON object.

The object has "root" (a folder), "scenes" (start, stop and step) and "wanted". For each finished scene its metadata entry
goes out as one line of JSON.
"""

import json
import sys
from pathlib import Path

from tinyworld.data.rooms.sample import Wanted, write_sample


def main(order: str) -> None:
    asked = json.loads(order)
    wanted = Wanted(**asked["wanted"])
    for index in range(*asked["scenes"]):
        print(json.dumps(write_sample(Path(asked["root"]), index, wanted)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
