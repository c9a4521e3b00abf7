"""The provider actor and the small state machines it is made of."""
