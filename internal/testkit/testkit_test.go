package testkit_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/targetclient"
)

func client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func post(t *testing.T, c *http.Client, url, body string, header ...string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	return resp, string(all), err
}

func TestTargetAnswersAsScripted(t *testing.T) {
	t.Parallel()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Status: 500}, testkit.Answer{Body: "second"})
	target.AnswerPath("/away", testkit.Answer{Redirect: "/there"})
	target.AnswerPath("/cut", testkit.Answer{Cut: true})
	target.AnswerPath("/short", testkit.Answer{Cut: true, Body: "half"})
	c := client(t)
	for i, want := range []int{500, 200, 200} {
		resp, body, err := post(t, c, target.URL+"/x", `{"n":1}`)
		if err != nil || resp.StatusCode != want || want == 200 && body != "second" {
			t.Errorf("request %d: %v %q %v", i, resp, body, err)
		}
	}
	resp, _, err := post(t, c, target.URL+"/away", "")
	if err != nil || resp.StatusCode != 302 || resp.Header.Get("Location") != "/there" {
		t.Errorf("redirect: %v %v", resp, err)
	}
	if _, _, err := post(t, c, target.URL+"/cut", ""); err == nil {
		t.Error("a cut connection gave an answer")
	}
	if _, body, err := post(t, c, target.URL+"/short", ""); err == nil || body != "half" {
		t.Errorf("a cut body: %q, %v", body, err)
	}
	requests := target.Wait(6, time.Second)
	if got := requests[0].JSON()["n"]; got != 1.0 {
		t.Errorf("body of the first request has n=%v", got)
	}
	if requests[3].JSON() != nil {
		t.Error("an empty body is an object")
	}
}

func TestTargetHangsUntilReleased(t *testing.T) {
	t.Parallel()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Hang: true, Body: "late"})
	answered := make(chan string, 1)
	c := client(t)
	go func() {
		_, body, _ := post(t, c, target.URL, "")
		answered <- body
	}()
	target.Wait(1, 10*time.Second)
	select {
	case <-answered:
		t.Error("answered before release")
	default:
	}
	target.Release()
	if body := <-answered; body != "late" {
		t.Errorf("answer is %q", body)
	}
}

func TestTargetSeesCallersLeave(t *testing.T) {
	t.Parallel()
	target := testkit.NewTarget(t, testkit.TargetOptions{})
	target.Answer(testkit.Answer{Delay: time.Hour})
	c := client(t)
	c.Timeout = 50 * time.Millisecond
	if _, _, err := post(t, c, target.URL, "x"); err == nil {
		t.Error("answered after an hour")
	}
	target.WaitLeft(1, 10*time.Second)
}

func TestTargetChecksSignatures(t *testing.T) {
	t.Parallel()
	target := testkit.NewTarget(t, testkit.TargetOptions{SigningKey: "secret"})
	good := targetclient.SignatureHeader([]string{"secret"}, time.Now(), []byte("body"))
	bad := targetclient.SignatureHeader([]string{"other"}, time.Now(), []byte("body"))
	c := client(t)
	for _, header := range [][]string{nil, {targetclient.SignatureHeaderName, good}, {targetclient.SignatureHeaderName, bad}} {
		if _, _, err := post(t, c, target.URL, "body", header...); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range []error{targetclient.ErrNotSigned, nil, targetclient.ErrNoValidSignature} {
		if got := target.Requests()[i].SignatureErr; !errors.Is(got, want) {
			t.Errorf("request %d: signature error is %v, want %v", i, got, want)
		}
	}
}

func TestTargetOverTLS(t *testing.T) {
	t.Parallel()
	certs := testkit.NewCertificates(t)
	target := testkit.NewTarget(t, testkit.TargetOptions{Certificates: certs})
	c := client(t)
	if _, _, err := post(t, c, target.URL, ""); err == nil {
		t.Error("an unknown authority was trusted")
	}
	tr := &http.Transport{TLSClientConfig: certs.Client}
	t.Cleanup(tr.CloseIdleConnections)
	if resp, _, err := post(t, &http.Client{Transport: tr}, target.URL, ""); err != nil || resp.StatusCode != 200 {
		t.Errorf("%v %v", resp, err)
	}
}
