#!/usr/bin/env python3
"""Reads the text in one picture: a model that is a plain program, run once for each job.

    ocr.py CONFIG INPUTS OUTPUTS

Reads the picture INPUTS/input (any format that Pillow knows) and writes OUTPUTS/output, a JSON array with an
object for each piece of text, in reading order:

    {"text": "Lot 8841-K", "confidence": 0.9964, "line": 1, "box": [[186, 363], [461, 281], ...]}

`box` holds the corners in pixels, clockwise from the upper left of the text; pieces that stand beside one
another share a `line`. A picture without text gives an empty array. The same picture always gives the same
output. What goes wrong is said on stderr in one line, and the exit code is then 1: the shepherd makes that
line the job's error.
"""

import json
import math
import sys
from pathlib import Path


class JobError(Exception):
    """The job cannot be done; the message is for whoever submitted it."""


def load_picture(path):
    """The picture as OpenCV has it (rows, columns, BGR), upright as its EXIF data says."""
    import numpy
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise JobError("the job has no inputs/input") from None
    except UnidentifiedImageError:
        raise JobError("inputs/input is no picture in a known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise JobError(f"inputs/input cannot be read as a picture: {error}") from None
    return numpy.ascontiguousarray(numpy.asarray(upright)[:, :, ::-1])


def recognise(picture, config):
    from rapidocr_onnxruntime import RapidOCR

    threads = config.get("threads", 1)
    engine = RapidOCR(
        text_score=config.get("text_score", 0.5), intra_op_num_threads=threads, inter_op_num_threads=1
    )
    pieces, _ = engine(picture)
    return [
        {
            "text": text,
            "confidence": round(float(confidence), 4),
            "box": [[round(float(x)), round(float(y))] for x, y in box],
        }
        for box, text, confidence in pieces or []
    ]


def reading_order(pieces):
    """Numbers the lines and sorts, along the direction of the text itself: the picture may be rotated."""
    along = [0.0, 0.0]
    for piece in pieces:
        (left, top), (right, bottom) = piece["box"][0], piece["box"][1]
        along = [along[0] + right - left, along[1] + bottom - top]
    length = math.hypot(*along) or 1.0
    ux, uy = along[0] / length, along[1] / length

    def place(piece):
        x = sum(corner[0] for corner in piece["box"]) / 4
        y = sum(corner[1] for corner in piece["box"]) / 4
        return x * ux + y * uy, y * ux - x * uy

    lines = []
    for piece in sorted(pieces, key=lambda piece: place(piece)[1]):
        height = math.dist(piece["box"][0], piece["box"][3])
        down = place(piece)[1]
        # Less than half a letter's height below the line's first piece: still the same line.
        if lines and down - lines[-1]["down"] < height / 2:
            lines[-1]["pieces"].append(piece)
        else:
            lines.append({"down": down, "pieces": [piece]})
    return [
        {"text": piece["text"], "confidence": piece["confidence"], "line": number, "box": piece["box"]}
        for number, line in enumerate(lines)
        for piece in sorted(line["pieces"], key=lambda piece: place(piece)[0])
    ]


def main(arguments):
    if len(arguments) != 3:
        raise JobError("usage: ocr.py CONFIG INPUTS OUTPUTS")
    config_path, inputs, outputs = map(Path, arguments)
    try:
        import yaml

        config = yaml.safe_load(config_path.read_text(encoding="utf-8")) or {}
        pieces = recognise(load_picture(inputs / "input"), config)
    except ImportError as error:
        raise JobError(f"a Python package is missing, see examples/demo/requirements.txt: {error}") from None
    result = json.dumps(reading_order(pieces), ensure_ascii=False)
    (outputs / "output").write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (JobError, OSError) as error:
        sys.exit(f"ocr.py: {error}")
