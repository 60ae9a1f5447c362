package testkit_test

import (
	"testing"

	"github.com/execgate/execgate/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
