"""Stores the control of a run: its state, the limits of new hosts, and the proof that it is finished."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from ragcrawl_dynamo._dynamodb import requests
from ragcrawl_dynamo._dynamodb.codec import from_item, to_item
from ragcrawl_dynamo._dynamodb.expressions import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Exists,
    Missing,
    Path,
    Update,
)
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo._dynamodb.values import Item, Key, Value, encode_value, moment_text
from ragcrawl_dynamo._dynamodb.write_token import WriteToken
from ragcrawl_dynamo._frontier.link_rules import LinkRules
from ragcrawl_dynamo._records.runs import check_id_order, swapped_ids
from ragcrawl_dynamo._schema.keys import control_key, run_key
from ragcrawl_dynamo._schema.records import RunControl, RunState
from ragcrawl_dynamo._schema.tables import Tables
from ragcrawl_dynamo.errors import AmbiguousIdError, ConditionFailedError, FrontierCancelledError
from ragcrawl_dynamo.models import RunStatus

logger = logging.getLogger(__name__)

# The fields that record the rules for links.
_RULES = ("host_max_items", "normalize", "politeness_key")

# Seconds after which a process that reads the whole run, and gave no sign of life, counts as dead.
_VERIFICATION_SECONDS = 60


class ControlStore:
    """Key `#{run_id}` / `control`: one item for each run."""

    def __init__(self, gateway: Gateway, tables: Tables, first: RunControl, rules: LinkRules) -> None:
        """`first` is the control that `make` stores if there is none, with the names of `rules`."""
        self._gateway = gateway
        self._table = tables.controls
        self._runs = tables.runs
        self._first = first
        self._rules = rules
        self._is_checked = False
        self._is_order_checked = False
        self._is_end_logged = False
        self.run_id: str = first.run
        self.site_id: str = first.site_id
        self.key: Key = control_key(first.run)
        # The number of buckets, which is not final before the control is stored and was read.
        self.buckets: int = first.buckets
        self._knows_buckets = False

    async def read(self) -> RunControl | None:
        """Returns the control, or None if none is stored; strongly consistent.

        Raises:
            AmbiguousIdError: It is the control of another site's run.
            InvalidArgumentError: None is stored, and the run's two ids are swapped.
        """
        response = await self._gateway.call("GetItem", requests.get_request(self._table, self.key))
        if "Item" in response:
            return self.decode(response["Item"])
        await self._check_id_order()
        return None

    def forget(self) -> None:
        """Forgets the control, after it was deleted."""
        self.buckets, self._knows_buckets = self._first.buckets, False
        self._is_checked = False

    async def know_buckets(self) -> None:
        """Reads how many buckets the run has, unless that is known."""
        if not self._knows_buckets:
            await self.read()

    async def note_new_limits(self) -> None:
        """Lets all processes read the limits of hosts again. It is called after limits are stored."""
        await self._update(WriteToken.new("limits_changed_by").assignment)

    async def make(self, *, with_rules: bool = False) -> RunControl:
        """Stores the first control, unless one is stored; returns the stored one.

        Args:
            with_rules: Records the rules for links too. Only a process that adds links does: a process that
                watches the run may not know them.

        Raises:
            AmbiguousIdError: The stored control is that of another site's run.
            InvalidArgumentError: None is stored, and the run's two ids are swapped.
        """
        await self._check_id_order()
        first = self._first if with_rules else self._first.model_copy(update=dict.fromkeys(_RULES))
        item = to_item(self._table, first)
        put = requests.put_request(self._table, item, Missing(self._table.partition_key))
        try:
            await self._gateway.call("PutItem", put)
        except ConditionFailedError as error:
            return self.decode(error.item) if error.item else first
        return self.decode(item)

    def decode(self, item: Item) -> RunControl:
        """Decodes the control in an item.

        Raises:
            AmbiguousIdError: It is the control of another site's run.
        """
        control = from_item(self._table, item)
        if control.site_id != self._first.site_id:
            raise AmbiguousIdError(
                f"run_id {self.run_id!r} is in use by site {control.site_id!r}, and cannot be used by site "
                f"{self._first.site_id!r}: run ids must be unique over all sites"
            )
        self.buckets, self._knows_buckets = control.buckets, True
        return control

    async def admit(self, control: RunControl | None) -> RunControl:
        """Returns the control of the run before links are added; stores the first one if there is none.

        Args:
            control: The control as it was just read; None if there is none.

        Raises:
            AmbiguousIdError: It is the control of another site's run.
            InvalidArgumentError: The run compares its links by other rules.
            FrontierCancelledError: The run is cancelled.
        """
        control = control or await self.make(with_rules=True)
        if control.normalize is None:
            control = await self._record_rules(control)
        self._rules.check(control)
        self._is_checked = True
        if control.state is RunState.CANCELLED:
            raise cancelled(control.run)
        return control

    async def _check_id_order(self) -> None:
        """Checks once, while no control is stored, that the run's two ids are not swapped.

        Raises:
            InvalidArgumentError: There is a run, or the control of one, with the two ids swapped.
        """
        if self._is_order_checked:
            return
        await check_id_order(self._gateway, self._runs, self.site_id, self.run_id)
        if self.site_id != self.run_id:
            request = requests.get_request(self._table, control_key(self.site_id))
            item = (await self._gateway.call("GetItem", request)).get("Item")
            if item is not None and from_item(self._table, item).site_id == self.run_id:
                raise swapped_ids(self.site_id, self.run_id)
        self._is_order_checked = True

    async def _record_rules(self, control: RunControl) -> RunControl:
        """Records the rules for links, unless another process has; returns the updated control."""
        recorded = {name: getattr(self._first, name) for name in _RULES}
        put: dict[Path, Value] = {
            name: encode_value(value, model="RunControl", field=name)
            for name, value in recorded.items()
            if value is not None
        }
        try:
            await self._update(put, Missing("normalize"))
        except ConditionFailedError as error:
            return self.decode(error.item) if error.item else control
        return control.model_copy(update=recorded)

    async def check_rules(self) -> None:
        """Checks once that the run uses the rules of this process.

        Raises:
            AmbiguousIdError: The run is one of another site.
            InvalidArgumentError: The run compares its links by other rules.
        """
        if not self._is_checked and (control := await self.read()) is not None:
            self._rules.check(control)
            self._is_checked = True

    async def set_state(self, state: RunState) -> None:
        """Pauses, resumes or cancels the run.

        Raises:
            FrontierCancelledError: The run is cancelled, which is final.
        """
        is_not_cancelled = AnyOf((Missing("state"), Compare("state", "<>", {"S": RunState.CANCELLED})))
        allowed: Condition = is_not_cancelled
        if state is RunState.CANCELLED:
            allowed = AnyOf((is_not_cancelled, Compare("state", "=", {"S": state})))
        try:
            await self._update({"state": {"S": state}}, allowed)
        except ConditionFailedError:
            raise cancelled(self.run_id) from None

    async def begin_verification(self, now: datetime) -> WriteToken | None:
        """Starts the proof that the run is finished; returns its token, None if another process does it."""
        token = WriteToken.new("verifying", length=8)
        oldest = moment_text(now - timedelta(seconds=_VERIFICATION_SECONDS))
        is_free = AnyOf((Missing("verifying"), Compare("verifying_since", "<", {"S": oldest})))
        try:
            await self._update({**token.assignment, "verifying_since": _moment(now)}, is_free)
        except ConditionFailedError as error:
            return token if token.is_in(error.item) else None
        return token

    async def keep_verification(self, token: WriteToken, now: datetime) -> bool:
        """Gives a sign of life for the proof; returns False if an item was added since it began."""
        try:
            await self._update({"verifying_since": _moment(now)}, token.is_present)
        except ConditionFailedError:
            return False
        return True

    async def end_verification(self, token: WriteToken, counts: Mapping[str, int] | None) -> bool:
        """Ends the proof.

        Args:
            token: The token of the proof.
            counts: How many items are in which state, if no item is open; None if the proof failed.

        Returns:
            Whether the run is finished. It is not if an item was added since the proof began.
        """
        proof = WriteToken("finished_by", token.value)
        put: dict[Path, Value] = {}
        if counts is not None:
            put |= proof.assignment
            put["final_counts"] = encode_value(dict(counts), model="RunControl", field="final_counts")
        try:
            await self._update(put, token.is_present, remove=("verifying", "verifying_since"))
        except ConditionFailedError as error:
            return bool(counts) and proof.is_in(error.item)
        return counts is not None

    async def reopen(self, control: RunControl | None) -> None:
        """Removes the proof that the run is finished, even one that another process has not ended yet.

        Args:
            control: The control as it was just read. It is only written if it has such a proof.
        """
        if control is not None and (control.verifying or control.finished_by):
            await self._update({}, remove=("verifying", "verifying_since", "finished_by"))

    async def warn_of_end(self, control: RunControl) -> None:
        """Logs once that links are added to a run that has ended: `Store.crawl` does not resume it.

        Args:
            control: The control as it was just read. The run is only read if it is proven to be finished.
        """
        if control.finished_by is None or self._is_end_logged:
            return
        request = requests.get_request(self._runs, run_key(self.site_id, self.run_id))
        run = (await self._gateway.call("GetItem", request)).get("Item")
        if run is not None and RunStatus(run["status"]["S"]).is_final:
            self._is_end_logged = True
            logger.warning(
                "run %r of site %r has ended with status %s: only workers that claim from this run fetch the "
                "links that are added to it now; otherwise begin the next run, and add them to its frontier",
                *(self.run_id, self.site_id, run["status"]["S"]),
            )

    async def _update(
        self, put: Mapping[Path, Value], condition: Condition | None = None, remove: Sequence[str] = ()
    ) -> None:
        is_own = Compare("site_id", "=", {"S": self._first.site_id})
        allowed = AllOf((Exists(self._table.partition_key), is_own, *((condition,) if condition else ())))
        update = Update(put=put, remove=remove)
        request = requests.update_request(self._table, self.key, update, allowed)
        try:
            await self._gateway.call("UpdateItem", request)
        except ConditionFailedError as error:
            if error.item:
                # Raises if the control is that of another site's run.
                self.decode(error.item)
                raise
            await self.make()
            await self._gateway.call("UpdateItem", request)


def cancelled(run_id: str) -> FrontierCancelledError:
    """Returns the error of a call that needs a run that is not cancelled."""
    return FrontierCancelledError(
        f"run {run_id!r} was cancelled: nothing can be claimed from its frontier, and it cannot be resumed; "
        f"begin a new run"
    )


def _moment(moment: datetime) -> Value:
    return encode_value(moment, model="RunControl", field="verifying_since")
