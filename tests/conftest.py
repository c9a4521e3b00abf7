from messages.base import freeze_messages
from tests import every_message

every_message.load()
freeze_messages()
