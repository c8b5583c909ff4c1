"""The smallest setting for a vision system, with a certificate: found, written as a policy,
checked."""
