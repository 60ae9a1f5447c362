package targetclient_test

import (
	"io"
	"log"
)

// quiet takes what servers say about clients that do not trust them.
var quiet = log.New(io.Discard, "", 0)
