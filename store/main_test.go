package store_test

import (
	"os"
	"testing"
)

// childEnv makes the test binary a child process that commits to the embedded store in the named file until it is
// killed.
const childEnv = "EXECGATE_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		commitUntilKilled(path)
	}
	os.Exit(m.Run())
}
