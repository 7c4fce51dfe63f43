"""What lmfuzz 0.3.0 found, a test for each; it fails as long as the model still misbehaves.

From chat: 2 in all. Run it with pytest, in the folder that lmfuzz was
started in: the model, and files that the objectives need, are looked for from there.
LMFUZZ_MODEL=OTHER runs the tests on another version of the model. Where a model cannot be loaded they fail.
"""

import os

import pytest

from lmfuzz.errors import TargetError, UsageError, printable
from lmfuzz.replay import Recorded, Replay
from lmfuzz.show import verdict_line

CAMPAIGN = {'spec': {'model': 'models:chat', 'seeds': ['corpora:chat/requests.txt'], 'count': 12, 'objectives': ['repetition', 'never_ends'], 'budget': '400x', 'seed': 7, 'batch': 32, 'max_new': 24, 'max_length': 48, 'level': 'token', 'keep': 1}, 'identity': '82749c619d6fb83d', 'spelling': '9296f8978df4ec2a', 'noise': {}, 'seeds': [[[57, 84, 916, 279, 335, 75, 77, 87, 679, 498, 940, 268, 383, 279, 259, 268, 456, 347, 72, 16], 'Write a haiku about rain on a tin roof.'], [[53, 526, 79, 293, 682, 276, 358, 274, 91, 311, 223, 698, 67, 74, 319, 569, 266, 351, 473, 16], 'Summarise the story of Noah in one sentence.'], [[39, 90, 82, 78, 395, 580, 88, 590, 302, 279, 925, 311, 289, 492, 16], 'Explain gravity to a child of five.'], [[41, 492, 338, 263, 807, 385, 270, 290, 85, 302, 314, 322, 455, 692, 376, 16], 'Give me three reasons to get up early.'], [[54, 84, 876, 78, 478, 223, 4, 73, 390, 267, 647, 309, 4, 319, 634, 881, 84, 280, 327, 310, 494, 261, 814, 16], 'Translate "good morning" into French and German.'], [[57, 84, 916, 279, 304, 488, 916, 541, 434, 341, 506, 320, 78, 85, 279, 294, 351, 638, 337, 895, 81, 268, 86, 929, 16], "Write a polite letter that cancels a dentist's appointment."], [[40, 75, 90, 378, 266, 351, 473, 28, 338, 310, 373, 543, 305, 302, 266, 327, 347, 78, 16], 'Fix this sentence: me and him goes to school.'], [[47, 411, 279, 333, 81, 529, 309, 372, 260, 343, 304, 262, 69, 584, 305, 16], 'Make a shopping list for pancakes.']]}

FINDINGS = [
    # finding 1
    {'number': 1, 'objective': 'never_ends', 'margin': 0.018531985580921173, 'prompt': 'Write a haiku about rain onl.', 'output': 'First Senator:\nI am a bawd of the purpose of the god', 'failed': 3, 'runs': 3, 'by_text': True, 'evidence': {'signature': 'no end of text', 'words': 'no end of text in 24 steps; it was likeliest at step 7, with a probability of 0.0092', 'span': None}, 'text': 'Write a haiku about rain onl.', 'row': [57, 84, 916, 279, 335, 75, 77, 87, 679, 498, 940, 268, 383, 78, 16]},
    # finding 2
    {'number': 2, 'objective': 'repetition', 'margin': 0.5, 'prompt': 'dESCriBE the COLour red with numbers.', 'output': 'CATESBY:\nI am awhile, sir, sir, sir, sir, sir,', 'failed': 3, 'runs': 3, 'by_text': True, 'evidence': {'signature': "word 'sir'", 'words': "the word 'sir' 5 times in a row", 'span': [22, 45]}, 'text': 'dESCriBE the COLour red with numbers.', 'row': [70, 446, 37, 355, 36, 39, 276, 431, 604, 345, 385, 70, 350, 297, 526, 68, 463, 16]},
]


@pytest.fixture(scope="module")
def replay():
    try:
        return Replay(Recorded.unpack(CAMPAIGN, FINDINGS), os.environ.get("LMFUZZ_MODEL"))
    except (TargetError, UsageError) as error:
        pytest.fail(f"the findings cannot be run again: {printable(str(error))}", pytrace=False)


@pytest.mark.parametrize("number", [finding["number"] for finding in FINDINGS])
def test_finding(replay, number):
    verdict = replay.judge(number)
    if not verdict.fixed:
        pytest.fail(verdict_line(verdict), pytrace=False)
