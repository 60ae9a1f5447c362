package targetclient

import "fmt"

// encode returns the bytes to send, which are also the bytes to sign.
func encode(p PayloadType, body []byte) ([]byte, error) {
	if p == JSON {
		return body, nil
	}
	return nil, fmt.Errorf("encode body as %s: %w", p, ErrPayloadType)
}
