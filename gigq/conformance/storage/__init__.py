"""The suite for storages: what every one of them keeps, whatever it is made of.

```python
class TestMongoStorage(StorageConformance):
    def make_storage(self, clock: Clock) -> MongoStorage:
        return MongoStorage(f"mongodb://127.0.0.1/{uuid4().hex}", clock=clock)
```

One module per subject; each case names the promise that it holds. Cases look through a second object
on the same data where there can be one, never only through the one that they have just used.
"""

from __future__ import annotations

from gigq.conformance.storage.add import AddCases, UniqueKeyCases
from gigq.conformance.storage.cancel import CancelCases, CancelRunningCases
from gigq.conformance.storage.clear import ClearCases, RetentionCases
from gigq.conformance.storage.dependencies import DependencyCases, ParentFailureCases
from gigq.conformance.storage.examining import ExaminingCases
from gigq.conformance.storage.find import CountCases, FindCases, GetCases
from gigq.conformance.storage.hostile import HostileCases
from gigq.conformance.storage.lives import LifecycleCases
from gigq.conformance.storage.lost_answers import LostAnswerCases
from gigq.conformance.storage.moving import MovingCases
from gigq.conformance.storage.opening import CapabilityCases, OpeningCases
from gigq.conformance.storage.order import OrderCases
from gigq.conformance.storage.outcomes import FenceCases, OutcomeCases, StoppingCases
from gigq.conformance.storage.races import ProcessCases, ThreadCases
from gigq.conformance.storage.requeue import RequeueCases, ReviveCases
from gigq.conformance.storage.sessions import AheadCases, RecoveryCases, SessionCases
from gigq.conformance.storage.times import DueCases, ExpiryCases
from gigq.conformance.storage.turn import ClaimCases, PauseCases, PayloadCases, TakesCases
from gigq.conformance.storage.waiting import WaitCases


class StorageConformance(
    OpeningCases,
    CapabilityCases,
    AddCases,
    UniqueKeyCases,
    GetCases,
    FindCases,
    CountCases,
    OrderCases,
    ClaimCases,
    TakesCases,
    PauseCases,
    PayloadCases,
    OutcomeCases,
    FenceCases,
    StoppingCases,
    DependencyCases,
    ParentFailureCases,
    CancelCases,
    CancelRunningCases,
    RequeueCases,
    ReviveCases,
    ClearCases,
    RetentionCases,
    SessionCases,
    RecoveryCases,
    AheadCases,
    DueCases,
    ExpiryCases,
    HostileCases,
    LostAnswerCases,
    WaitCases,
    MovingCases,
    ExaminingCases,
    LifecycleCases,
    ThreadCases,
    ProcessCases,
):
    """All cases for a storage. Give `make_storage`; the rest has defaults (see `StorageCases`)."""


__all__ = ["StorageConformance"]
