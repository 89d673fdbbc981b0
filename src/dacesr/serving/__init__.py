"""One queue of pictures for all who ask over the network, shared by the web page and the HTTP API."""
