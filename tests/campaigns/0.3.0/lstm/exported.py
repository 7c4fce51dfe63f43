"""What lmfuzz 0.3.0 found, a test for each; it fails as long as the model still misbehaves.

From lstm: 6 in all. Run it with pytest, in the folder that lmfuzz was
started in: the model, and files that the objectives need, are looked for from there.
LMFUZZ_MODEL=OTHER runs the tests on another version of the model. Where a model cannot be loaded they fail.
"""

import os

import pytest

from lmfuzz.errors import TargetError, UsageError, printable
from lmfuzz.replay import Recorded, Replay
from lmfuzz.show import verdict_line

CAMPAIGN = {'spec': {'seeds': ['corpora:seeds/fragments.txt'], 'count': 24, 'objectives': ['repetition', 'phrases:words=["thou","zounds"]'], 'budget': '2000x', 'seed': 7, 'keep': 2}, 'identity': '788131410f07f7ae', 'spelling': '8415e7d0e6db1364', 'noise': {}, 'seeds': [[[39], 'a'], [[29], 'Q'], [[64, 64], 'zz'], [[58, 46, 53, 59], 'thou'], [[61, 46, 43, 56, 43], 'where'], [[22, 59, 62], 'Jux'], [[61, 46, 43, 56, 43, 44, 53], 'wherefo'], [[59, 52, 58], 'unt']]}

FINDINGS = [
    # finding 1
    {'number': 1, 'objective': 'phrases/thou', 'margin': 1.0, 'prompt': '&', 'output': 'r that thou shalt be so state\nThat the strength of', 'failed': 3, 'runs': 3, 'by_text': None, 'evidence': {'signature': 'thou', 'words': "the output holds 'thou'", 'span': [7, 11]}, 'text': '&', 'row': [4]},
    # finding 2
    {'number': 2, 'objective': 'phrases/thou', 'margin': 1.0, 'prompt': 'TH', 'output': 'ENRY:\nAnd then thou shalt be so so strange to the ', 'failed': 3, 'runs': 3, 'by_text': None, 'evidence': {'signature': 'thou', 'words': "the output holds 'thou'", 'span': [15, 19]}, 'text': 'TH', 'row': [32, 20]},
    # finding 3
    {'number': 3, 'objective': 'repetition', 'margin': 0.022727273404598236, 'prompt': 'nAk\nk\nk\nkk\nk\nk\nkk\nk\nk\nk\nk\nkkAvo', 'output': 'iner of the sea of the sea of the sea\nThat the sen', 'failed': 3, 'runs': 3, 'by_text': None, 'evidence': {'signature': "loop ' of the sea'", 'words': "' of the sea' 3.0 times over (a loop of 11 characters)", 'span': [4, 37]}, 'text': 'nAk\nk\nk\nkk\nk\nk\nkk\nk\nk\nk\nk\nkkAvo', 'row': [52, 13, 49, 0, 49, 0, 49, 0, 49, 49, 0, 49, 0, 49, 0, 49, 49, 0, 49, 0, 49, 0, 49, 0, 49, 0, 49, 49, 13, 60, 53]},
    # finding 4
    {'number': 4, 'objective': 'repetition', 'margin': 0.022727273404598236, 'prompt': '..Ak\nk\nk\nkk\nk\nk\nkk\nk\nk\nk\nk\nkkAvo', 'output': 'iner of the sea of the sea of the sea\nThe strength', 'failed': 3, 'runs': 3, 'by_text': None, 'evidence': {'signature': "loop ' of the sea'", 'words': "' of the sea' 3.0 times over (a loop of 11 characters)", 'span': [4, 37]}, 'text': '..Ak\nk\nk\nkk\nk\nk\nkk\nk\nk\nk\nk\nkkAvo', 'row': [8, 8, 13, 49, 0, 49, 0, 49, 0, 49, 49, 0, 49, 0, 49, 0, 49, 49, 0, 49, 0, 49, 0, 49, 0, 49, 0, 49, 49, 13, 60, 53]},
    # finding 5
    {'number': 5, 'objective': 'repetition', 'margin': 0.25, 'prompt': '::::::C:::::C', 'output': 'ast thou art thou art thou art the sea\nThat the se', 'failed': 3, 'runs': 3, 'by_text': None, 'evidence': {'signature': "loop ' art thou'", 'words': "'t thou ar' 3.4 times over (a loop of 9 characters)", 'span': [2, 33]}, 'text': '::::::C:::::C', 'row': [10, 10, 10, 10, 10, 10, 15, 10, 10, 10, 10, 10, 15]},
    # finding 6
    {'number': 6, 'objective': 'repetition', 'margin': 0.25, 'prompt': '::::::C:::::C:::::C:::::C', 'output': 'ast thou art thou art thou art the sea\nThat the st', 'failed': 3, 'runs': 3, 'by_text': None, 'evidence': {'signature': "loop ' art thou'", 'words': "'t thou ar' 3.4 times over (a loop of 9 characters)", 'span': [2, 33]}, 'text': '::::::C:::::C:::::C:::::C', 'row': [10, 10, 10, 10, 10, 10, 15, 10, 10, 10, 10, 10, 15, 10, 10, 10, 10, 10, 15, 10, 10, 10, 10, 10, 15]},
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
