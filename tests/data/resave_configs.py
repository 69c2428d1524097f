"""Write tests/data/resaved_hf_configs: the bundled models' config.json files as transformers 5 saves them.

    pip install transformers==5.23.0 && python tests/data/resave_configs.py

A fine-tune saved by a newer release has keys the original file lacks; it must be understood all the same.
Families that transformers 5 has no class for are left out, and said.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from transformers import CONFIG_MAPPING

HERE = Path(__file__).parent
# Remote code that is the same architecture as a class of transformers itself.
SAME_AS = {"kimi_k2": "deepseek_v3"}


# transformers 5 does not look for a rotation's base where DBRX has it, and saves another one beside it.
LOSES = {"dbrx"}


def main() -> None:
    """Save each config through its class."""
    for path in sorted((HERE / "hf_configs").glob("*.json")):
        given = json.loads(path.read_text(encoding="utf-8"))
        given.pop("auto_map", None)
        given["model_type"] = SAME_AS.get(given["model_type"], given["model_type"])
        if given["model_type"] in LOSES:
            continue
        if given["model_type"] not in CONFIG_MAPPING:
            print(f"{path.stem}: no class for {given['model_type']}")
            continue
        with tempfile.TemporaryDirectory() as folder:
            CONFIG_MAPPING[given["model_type"]].from_dict(given).save_pretrained(folder)
            shutil.copy(Path(folder) / "config.json", HERE / "resaved_hf_configs" / path.name)


if __name__ == "__main__":
    main()
