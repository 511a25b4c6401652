"""Other people's evaluators in our call shape; each adapter imports its package when it is made."""
