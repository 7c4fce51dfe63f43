"""From a checkpoint to the folder that is tested."""

from pathlib import Path
from typing import Any

from lmfuzz.targets import checkpoint
from lmfuzz.targets.importing import keras, nanogpt
from lmfuzz.targets.importing.alphabet import choose
from lmfuzz.targets.importing.char_rnn import Found
from lmfuzz.targets.importing.state_dict import listed, read, tensors_in
from lmfuzz.text import plural


def make(file: Path, folder: Path, alphabet: str = "", allow_pickle: bool = False) -> str:
    """Write the model in a checkpoint as a folder, and return a line that describes it.

    Args:
        file: A state_dict or training checkpoint of torch, a safetensors file, or one of Keras.
        folder: The folder to write; it is created once everything is known to fit.
        alphabet: A file, a text, or ``printable``; '' looks into the checkpoint.
        allow_pickle: Whether the alphabet's file may be a pickle, of which only plain data are read.

    Raises:
        TargetError: The file is not a checkpoint, or its network is of another kind.
        UsageError: The alphabet is missing, or is not the model's.
    """
    content: Any = keras.read(file) if file.suffix in keras.SUFFIXES else read(file)
    tensors = tensors_in(content, file)
    gpt = next((name for name in tensors if name.endswith(nanogpt.EMBEDDING)), "")
    found = None if gpt else Found(tensors, file)
    known = found.output if found else gpt
    place = f"{listed({known: tensors[known]})} in {file}"
    characters = choose(content, alphabet, allow_pickle, len(tensors[known]), place)
    if not found:
        return nanogpt.save(tensors, content, characters, file, folder)
    checkpoint.save(found.build(characters), folder)
    return (
        f"{found.cell}, {plural(found.layers, 'layer')} of {found.hidden}, embedding of {found.reads},"
        f" {len(characters)} characters"
    )
