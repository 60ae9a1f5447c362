package targetclient_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/execgate/execgate/targetclient"
)

// A receiver checks the signature over the bytes that it read.
func ExampleVerify() {
	key, body := "secret", []byte(`{"fullMethod":"/x.Y/Z"}`)
	header := targetclient.SignatureHeader([]string{key}, time.Unix(1700000000, 0), body)

	fmt.Println(header)
	fmt.Println(targetclient.Verify(header, key, body, time.Unix(1700000060, 0), targetclient.DefaultTolerance))
	fmt.Println(targetclient.Verify(header, key, body, time.Unix(1700000600, 0), targetclient.DefaultTolerance))
	// Output:
	// t=1700000000,v1=01d622ca416407736a6d703b9d54df713e7090d3b24b7b6d0a68ca2601ae9257
	// <nil>
	// signature is too old
}

// A target that says no.
func ExampleClient_Do() {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"forwardedStatusCode":403,"forwardedErrorMessage":"not on Sundays"}`)
	}))
	defer s.Close()
	c, err := targetclient.New(targetclient.Options{})
	if err != nil {
		panic(err)
	}
	defer c.Close()

	_, err = c.Do(context.Background(), targetclient.Call{
		Target: &targetclient.Target{ID: "1", Name: "calendar", URL: s.URL, Timeout: time.Second},
		Body:   []byte(`{"fullMethod":"/x.Y/Z"}`),
	})
	var e *targetclient.Error
	if errors.As(err, &e) {
		fmt.Println(e.Reason, e.ForwardedStatus, e.Message)
	}
	// Output: forwarded 403 not on Sundays
}
