"""Which adapter an image needs: features of the frozen encoder, statistics of each domain, and a pool of bundles."""
