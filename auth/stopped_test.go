package auth

const stoppedChildEnv = "PEERLIMIT_AUTH_TEST_CHILD"

func stoppedChild() int { return 0 }
