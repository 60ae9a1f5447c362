package proxy

import (
	"context"

	"github.com/execgate/execgate/dispatcher"
)

// Told returns what a caller is told when a target ends its call: the name of the code and the message, as in
// "PermissionDenied: not today (EXEC-reUaUZCzCp)".
func Told(interrupt *dispatcher.InterruptError) string {
	return dispatchError(context.Background(), nil, interrupt).Error()
}
