"""The pixels of one view, from its plan: crop, flip, operations, jitter, erasing, in this order, in one kernel.

Kernels live in ``resize``, ``affine``, ``ops`` and ``erase``; this module decides their order and their memory. One
call for a view means one wait for Python's lock, which the threads of a loader share.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import inlined, kernel
from logitstore.views import ops
from logitstore.views.affine import affine_words, transform
from logitstore.views.erase import box_pixels, fill_noise
from logitstore.views.plan import CODES, COUNT, FLIP, HEIGHT, OPERANDS, WIDTH
from logitstore.views.resize import resize, resize_words
from logitstore.views.spec import OPERATIONS
from logitstore.views.tables import sin_degrees

(
    _AUTO_CONTRAST, _EQUALIZE, _INVERT, _ROTATE, _POSTERIZE, _SOLARIZE, _SOLARIZE_ADD, _COLOR, _CONTRAST, _BRIGHTNESS,
    _SHARPNESS, _SHEAR_X, _SHEAR_Y, _TRANSLATE_X, _TRANSLATE_Y,
) = range(len(OPERATIONS))  # fmt: skip


@kernel
def operation_matrix(code, argument, size, sine):  # type: ignore[no-untyped-def]
    """Where each output pixel of a geometric operation comes from, as Pillow's ``Image.transform`` takes it."""
    if code == _ROTATE:
        up, along = sin_degrees(argument, sine), sin_degrees(90.0 - abs(argument), sine)
        centre = size / 2.0
        shift_x = along * -centre + -up * -centre + centre
        shift_y = up * -centre + along * -centre + centre
        return along, -up, shift_x, up, along, shift_y
    if code == _SHEAR_X:
        return 1.0, argument, 0.0, 0.0, 1.0, 0.0
    if code == _SHEAR_Y:
        return 1.0, 0.0, 0.0, argument, 1.0, 0.0
    if code == _TRANSLATE_X:
        return 1.0, 0.0, argument * size, 0.0, 1.0, 0.0
    return 1.0, 0.0, 0.0, 0.0, 1.0, argument * size


@inlined
def _out_of_place(code):  # type: ignore[no-untyped-def]
    return code == _ROTATE or code >= _SHARPNESS


@inlined
def _in_place(code, argument, view):  # type: ignore[no-untyped-def]
    if code == _AUTO_CONTRAST:
        ops.autocontrast(view)
    elif code == _EQUALIZE:
        ops.equalize(view)
    elif code == _INVERT:
        ops.invert(view)
    elif code == _POSTERIZE:
        ops.posterize(view, int(argument))
    elif code == _SOLARIZE:
        ops.solarize(view, int(argument))
    elif code == _SOLARIZE_ADD:
        ops.solarize_add(view, int(argument), 128)
    elif code == _COLOR:
        ops.color(view, argument)
    elif code == _CONTRAST:
        ops.contrast(view, argument)
    else:
        ops.brightness(view, argument)


@kernel
def paint(pixels, pitch, left, top, plan, operands, size, fill, noise_3x4096, seed, sine, out, arena, read):  # type: ignore[no-untyped-def]
    """Make one view; 0 when done, else how many words of scratch are needed, and nothing is written.

    Args:
        pixels: the image or a part that holds the crop, uint8, flat.
        pitch: bytes from one of its rows to the next.
        left: where the crop begins in it, in pixels.
        top: likewise.
        plan: what ``draw`` drew, int64; see ``plan``.
        operands: likewise, float64.
        size: S.
        fill: uint8 [3].
        noise_3x4096: of ``noise_tables``; not read where nothing is erased.
        seed: the view's seed, uint64.
        sine: the table.
        out: uint8 [3 S S], written.
        arena: scratch, uint64.
        read: the same memory, read-only.
    """
    width, height, count = plan[WIDTH], plan[HEIGHT], plan[COUNT]
    spare_words = (3 * size * size + 7) // 8
    words = spare_words + max(resize_words(width, height, size, size, size, size), affine_words(size, size, size, size))
    if words > len(arena):
        return words
    view, spare, scratch = out, arena[:spare_words].view(np.uint8)[: 3 * size * size], arena[spare_words:]
    swaps = 0
    for n in range(count):
        swaps += _out_of_place(plan[CODES + n])
    if swaps % 2:  # each changes buffers: starting in the right one, the last leaves the view in ``out``
        view, spare = spare, view
    box = (left, top, width, height)
    resize(pixels, pitch, box, size, size, 0, 0, plan[FLIP] != 0, view, size, size, scratch, read[spare_words:])
    for n in range(count):
        code, argument = plan[CODES + n], operands[OPERANDS + n]
        if not _out_of_place(code):
            _in_place(code, argument, view)
            continue
        if code == _SHARPNESS:
            ops.sharpness(view, spare, size, size, argument)
        else:
            side, matrix = np.uint64(size), operation_matrix(code, argument, float(size), sine)
            transform(view, side, side, matrix, fill, spare, side, side, scratch)
        view, spare = spare, view
    if operands[0] > 0.0:
        rectangle = box_pixels(operands[0], operands[1], operands[2], operands[3], size)
        fill_noise(out, size, rectangle, seed, noise_3x4096)
    return 0
