"""What checking a task of VQAv2's size takes: 443 757 questions on 82 783 images with ten answers each.

The release is generated; beside it stands the time to load its two large files whole, as most programs do.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from PIL import Image

QUESTIONS, IMAGES = 443_757, 82_783
SPLITS = {"train": QUESTIONS, "val": 2}
WORDS = [f"word{number}" for number in range(3000)] + ["yes", "no"] * 1000


def generate(folder: Path) -> None:
    """Write the release: two JSON files and a zip of images a split."""
    draw = random.Random(0)
    for split, count in SPLITS.items():
        images = max(1, count * IMAGES // QUESTIONS)
        rows = [records(draw, number * images // count, number) for number in range(count)]
        questions, annotations = zip(*rows, strict=True)
        year = f"{split}2014"
        for name, member, listed in (
            (f"v2_OpenEnded_mscoco_{year}_questions.json", "questions", questions),
            (f"v2_mscoco_{year}_annotations.json", "annotations", annotations),
        ):
            (folder / name).write_text(json.dumps({"info": {}, member: listed}))
        picture = io.BytesIO()
        Image.new("RGB", (8, 8)).save(picture, "JPEG")
        with zipfile.ZipFile(folder / f"{year}.zip", "w") as archive:
            for number in range(images):
                archive.writestr(f"{year}/COCO_{year}_{number:012d}.jpg", picture.getvalue())


def records(draw: random.Random, image: int, number: int) -> tuple[dict[str, object], dict[str, object]]:
    """A question and its annotation."""
    asked = {"image_id": image, "question_id": image * 1000 + number % 1000}
    common = draw.choice(WORDS)
    answers = [
        {
            "answer": draw.choice([common, common, draw.choice(WORDS)]),
            "answer_confidence": "yes",
            "answer_id": at,
        }
        for at in range(1, 11)
    ]
    told = {"question_type": "what is the", "multiple_choice_answer": common, "answer_type": "other"}
    question = f"What is the {draw.choice(WORDS)} doing near the {draw.choice(WORDS)}?"
    return asked | {"question": question}, asked | told | {"answers": answers}


def seconds_to_load(folder: Path) -> float:
    """To read both files of the training split whole."""
    begun = time.perf_counter()
    for file in folder.glob("v2_*train*.json"):
        json.loads(file.read_bytes())
    return time.perf_counter() - begun


def main() -> None:
    """Generate, check, and print what it took."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--dir", help="where the release is generated; default: a temporary folder")
    with tempfile.TemporaryDirectory(dir=arguments.parse_args().dir) as name:
        # In a process of its own: what it held would count as the check's.
        made = multiprocessing.get_context("spawn").Process(target=generate, args=(Path(name),))
        made.start()
        made.join()
        begun = time.perf_counter()
        command = [str(Path(sys.executable).parent / "pamctl"), "tasks", "check", name]
        checking = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert checking.stdout is not None
        print(checking.stdout.read())
        _, status, used = os.wait4(checking.pid, 0)
        seconds, memory = time.perf_counter() - begun, used.ru_maxrss / 1000
        assert status == 0
        whole = seconds_to_load(Path(name))
    print(f"check: {seconds:.1f} s, {memory:.0f} MB; loading its two files whole: {whole:.1f} s")


if __name__ == "__main__":
    main()
