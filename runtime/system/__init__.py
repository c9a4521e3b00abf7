"""The actor system: mailboxes, dispatcher, supervision, timers, clocks."""
