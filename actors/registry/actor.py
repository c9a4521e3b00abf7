"""The registry: the one place where the configuration gets its generation.

Owns: the file's part (the last ``Propose``), the overlay of what the admin API changed, the lists of models that providers
told of themselves, and what the three say together: the snapshot in force, with its generation.
Accepts: ``Propose`` (a validated file; answered by ``Configured``), the changes of the admin API (answered by ``Changed``),
``ModelsLearned`` (from the prober), ``GetSnapshot``. What does not hold together is answered by ``ChangeRefused``.
Always: the generation only grows, by one; every snapshot that comes into force is told to all subscribers, in order; what
is refused changes nothing. A new file replaces the file's part only: the overlay stays. A provider whose file names models
serves these and no others. A change that says what is so already is accepted, and the generation stays.

Whether file and overlay hold together is asked without the learned lists: those are facts, which nobody can refuse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from actors.kernel import Context, Ref
from actors.registry.changes import changed
from actors.registry.learned import Describe, Learned, as_it_came, sorted_by_name, still_good, with_all
from actors.registry.overlay import Overlay, compose
from actors.registry.verdict import change_refusal, file_refusal
from messages.changes import Change, Changed, ChangeRefused
from messages.control import ConfigSnapshot, Configured, GetSnapshot, ModelsLearned, Propose

RegistryMail = Propose | ModelsLearned | GetSnapshot | Change
"""What the registry takes."""

MODELS_LIMIT = 10_000
"""Models kept of one provider's own list."""

NOTHING = ConfigSnapshot(0, (), "", ())
"""In force before the first file."""


class RegistryActor:
    """Its successor goes on from the snapshot in force, and tells it again.

    ``strategies``: the names a strategy may have; none given: any.
    """

    def __init__(
        self,
        subscribers: Sequence[Ref[Configured]],
        describe: Describe = as_it_came,
        before: "RegistryActor | None" = None,
        *,
        strategies: Sequence[str] = (),
    ) -> None:
        self._subscribers = tuple(subscribers)
        self._describe = describe
        self._strategies = tuple(strategies)
        # All hold facts only, replaced together at the end of a turn, so they are sound whatever befell the predecessor.
        self._file: ConfigSnapshot = before._file if before else NOTHING
        self._overlay: Overlay = before._overlay if before else Overlay()
        self._learned: Mapping[str, Learned] = before._learned if before else {}
        self._snapshot: ConfigSnapshot = before._snapshot if before else NOTHING

    def start(self, context: Context) -> None:
        """Tell the snapshot in force again, for it is not known who has missed it."""
        if self._snapshot.generation:
            self._tell_all(self._snapshot, context)

    def handle(self, message: RegistryMail, context: Context) -> None:
        """Take one message."""
        match message:
            case Propose():
                self._on_propose(message, context)
            case ModelsLearned():
                self._on_models_learned(message, context)
            case GetSnapshot():
                context.reply(Configured(self._snapshot))
            case _:
                self._on_change(message, context)

    def invariant(self) -> str | None:
        """What is in force is what file, overlay and learned lists say; those lists are wanted, and bounded."""
        for provider, (_, models) in self._learned.items():
            if not 0 < len(models) <= MODELS_LIMIT:
                return f"{len(models)} models are kept for {provider}"
        together = compose(self._file, self._overlay)
        if len(still_good(self._learned, together)) != len(self._learned):
            return "models are kept for a provider which does not list its own there"
        if replace(with_all(together, self._learned), generation=self._snapshot.generation) != self._snapshot:
            return "what is in force is not what file and overlay say"
        return None

    def _on_propose(self, message: Propose, context: Context) -> None:
        file = message.snapshot
        refusal = file_refusal(file, self._overlay, self._strategies)
        if refusal is not None:
            context.reply(refusal)
            return
        snapshot, learned = self._next(file, self._overlay, self._learned)
        self._tell_all(snapshot, context)
        context.reply(Configured(snapshot))
        self._file, self._learned, self._snapshot = file, learned, snapshot

    def _on_change(self, change: Change, context: Context) -> None:
        overlay = changed(change, self._overlay, self._file, self._snapshot)
        if isinstance(overlay, ChangeRefused):
            context.reply(overlay)
            return
        refusal = change_refusal(compose(self._file, overlay), self._strategies)
        if refusal is not None:
            context.reply(refusal)
            return
        snapshot, learned = self._next(self._file, overlay, self._learned)
        if self._is_news(snapshot):
            self._tell_all(snapshot, context)
        else:
            snapshot = self._snapshot
        context.reply(Changed(snapshot.generation))
        self._overlay, self._learned, self._snapshot = overlay, learned, snapshot

    def _on_models_learned(self, message: ModelsLearned, context: Context) -> None:
        spec = next((spec for spec in self._snapshot.providers if spec.id == message.provider), None)
        # An empty list is taken for one the server does not keep: it tells nothing about what can be asked for.
        if spec is None or not spec.lists_models or not message.models:
            return
        models = tuple(self._describe(spec, model) for model in sorted_by_name(message.models)[:MODELS_LIMIT])
        snapshot, learned = self._next(self._file, self._overlay, {**self._learned, spec.id: (spec.endpoint, models)})
        if self._is_news(snapshot):
            self._tell_all(snapshot, context)
            self._learned, self._snapshot = learned, snapshot

    def _next(
        self, file: ConfigSnapshot, overlay: Overlay, learned: Mapping[str, Learned]
    ) -> tuple[ConfigSnapshot, Mapping[str, Learned]]:
        """The snapshot of the next generation, and the learned lists that are still good in it."""
        together = replace(compose(file, overlay), generation=self._snapshot.generation + 1)
        kept = still_good(learned, together)
        return with_all(together, kept), kept

    def _is_news(self, snapshot: ConfigSnapshot) -> bool:
        return replace(snapshot, generation=self._snapshot.generation) != self._snapshot

    def _tell_all(self, snapshot: ConfigSnapshot, context: Context) -> None:
        told = Configured(snapshot)
        for subscriber in self._subscribers:
            context.tell(subscriber, told)
