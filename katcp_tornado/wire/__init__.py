"""Values, messages and versions of KATCP, to bytes and back."""
