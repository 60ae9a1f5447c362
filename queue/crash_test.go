package queue_test

const childEnv = "EXECGATE_QUEUE_TEST_CHILD"

func crashChild(string) {}
