from lmfuzz.api.entry import diff as diff
from lmfuzz.api.entry import fuzz as fuzz
from lmfuzz.api.entry import open as open
from lmfuzz.api.result import Result as Result
from lmfuzz.errors import DiskError as DiskError
from lmfuzz.errors import TargetError as TargetError
from lmfuzz.errors import UsageError as UsageError
from lmfuzz.inputs.spaces import BoxSpace as BoxSpace
from lmfuzz.inputs.spaces import TextSpace as TextSpace
from lmfuzz.protocols import Target as Target
from lmfuzz.targets.function import on as on
from lmfuzz.types import Batch as Batch
from lmfuzz.types import Evidence as Evidence
from lmfuzz.types import Finding as Finding

__version__: str
