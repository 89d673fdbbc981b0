"""One queue of pictures for all who ask over the network."""
