"""The configuration groups. This file makes them the package `distdiff.conf`, so that `pkg://distdiff.conf` finds them."""
