#!/usr/bin/env python3
"""Reads the text in pictures. It knows nothing of shepherds: ocr.py serves it warm, and it is a program too.

    recognise.py CONFIG INPUTS OUTPUTS      one picture
    recognise.py CONFIG                     as many as are named on stdin: a line is INPUTS, a tab, OUTPUTS, and is
                                            answered by the seconds that it took (`ready` comes before the first)

Reads the picture INPUTS/input (any format that Pillow knows) and writes OUTPUTS/output, a JSON array with an
object for each piece of text, in reading order:

    {"text": "Lot 8841-K", "confidence": 0.9964, "line": 1, "box": [[186, 363], [461, 281], ...]}

`box` holds the corners in pixels, clockwise from the upper left of the text; pieces that stand beside one
another share a `line`. A picture without text gives an empty array. The same picture always gives the same
output. What goes wrong is said on stderr in one line, and the exit code is then 1.
"""

import json
import math
import sys
import time
from pathlib import Path

import numpy
import yaml
from PIL import Image, ImageOps, UnidentifiedImageError
from rapidocr_onnxruntime import RapidOCR


class PictureError(Exception):
    """The job cannot be done; the message is for whoever submitted it."""


class Recogniser:
    """The loaded model."""

    def __init__(self, config):
        self._engine = RapidOCR(
            text_score=config.get("text_score", 0.5),
            intra_op_num_threads=config.get("threads", 1),
            inter_op_num_threads=1,
        )

    def process(self, inputs, outputs):
        """Reads the picture of one job and writes what is in it."""
        result = json.dumps(reading_order(self._recognise(load_picture(inputs / "input"))), ensure_ascii=False)
        (outputs / "output").write_text(result + "\n", encoding="utf-8")

    def _recognise(self, picture):
        pieces, _ = self._engine(picture)
        return [
            {
                "text": text,
                "confidence": round(float(confidence), 4),
                "box": [[round(float(x)), round(float(y))] for x, y in box],
            }
            for box, text, confidence in pieces or []
        ]


def load_picture(path):
    """The picture as OpenCV has it (rows, columns, BGR), upright as its EXIF data says."""
    try:
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture).convert("RGB")
    except FileNotFoundError:
        raise PictureError("the job has no inputs/input") from None
    except UnidentifiedImageError:
        raise PictureError("inputs/input is no picture in a known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"inputs/input cannot be read as a picture: {error}") from None
    return numpy.ascontiguousarray(numpy.asarray(upright)[:, :, ::-1])


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


def loop(recogniser):
    """Does what stdin names, one after the other. Nothing is between two pictures, so it tells what they take by
    themselves."""
    print("ready", flush=True)
    for line in sys.stdin:
        inputs, outputs = map(Path, line.rstrip("\n").split("\t"))
        begun = time.perf_counter()
        recogniser.process(inputs, outputs)
        print(f"{time.perf_counter() - begun:.6f}", flush=True)


def main(arguments):
    if len(arguments) not in (1, 3):
        raise PictureError("usage: recognise.py CONFIG [INPUTS OUTPUTS]")
    config_path, *job = map(Path, arguments)
    recogniser = Recogniser(yaml.safe_load(config_path.read_text(encoding="utf-8")) or {})
    if job:
        recogniser.process(*job)
    else:
        loop(recogniser)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (PictureError, OSError) as error:
        sys.exit(f"recognise.py: {error}")
