"""A server that segments whatever picture it is sent, with the champion that fits it."""
