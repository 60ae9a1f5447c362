package targetclient_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/execgate/execgate/targetclient"
)

const (
	standardOld = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	standardNew = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
	otherSecret = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
)

func seed(b byte) string {
	return "whsk_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(b), ed25519.SeedSize)))
}

func TestStandardWebhooksAgreesWithTheReferenceLibrary(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"an object": `{"test": 2432232314}`, "nothing": "", "dots": "a.b.c", "not text": "\x00\xff\x80.",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := targetclient.NewStandardWebhooks(true, false, []string{standardOld, standardNew})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			header := http.Header{}
			header.Set("webhook-id", "msg.with.dots")
			header.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
			header.Set("webhook-signature", s.Header("msg.with.dots", now, []byte(body)))
			for _, secret := range []string{standardOld, standardNew} {
				reference, err := standardwebhooks.NewWebhook(secret)
				if err != nil {
					t.Fatal(err)
				}
				if err := reference.Verify([]byte(body), header); err != nil {
					t.Errorf("the receiver that knows only one of the secrets: %v", err)
				}
				if err := reference.Verify([]byte(body+" "), header); err == nil {
					t.Error("another body passed")
				}
			}
			stranger, err := standardwebhooks.NewWebhook(otherSecret)
			if err != nil {
				t.Fatal(err)
			}
			if err := stranger.Verify([]byte(body), header); err == nil {
				t.Error("another secret passed")
			}
			one, err := targetclient.NewStandardWebhooks(true, false, []string{standardOld})
			if err != nil {
				t.Fatal(err)
			}
			reference, _ := standardwebhooks.NewWebhook(standardOld)
			want, err := reference.Sign("id", now, []byte(body))
			if got := one.Header("id", now, []byte(body)); err != nil || got != want {
				t.Errorf("got %q, the library makes %q (%v)", got, want, err)
			}
		})
	}
}

func TestStandardWebhooksVector(t *testing.T) {
	t.Parallel()
	// The vector of the specification's own test suites.
	s, err := targetclient.NewStandardWebhooks(true, false, []string{standardOld})
	if err != nil {
		t.Fatal(err)
	}
	got := s.Header("msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStandardWebhooksAsymmetric(t *testing.T) {
	t.Parallel()
	s, err := targetclient.NewStandardWebhooks(true, true, []string{seed('a'), standardOld, seed('b')})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(s.Header("id", time.Unix(1700000000, 0), []byte("body")), " ")
	if len(parts) != 3 || !strings.HasPrefix(parts[0], "v1,") {
		t.Fatalf("got %q", parts)
	}
	for i, public := range s.PublicKeys() {
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(public, "whpk_"))
		if err != nil {
			t.Fatal(err)
		}
		encoded, ok := strings.CutPrefix(parts[i+1], "v1a,")
		signature, err := base64.StdEncoding.DecodeString(encoded)
		if !ok || err != nil {
			t.Fatalf("part %q: %v", parts[i+1], err)
		}
		if !ed25519.Verify(key, []byte("id.1700000000.body"), signature) {
			t.Errorf("signature %d is not that of public key %d", i, i)
		}
	}
}

func TestStandardWebhooksRefusesBadSecretsWithoutShowingThem(t *testing.T) {
	t.Parallel()
	for name, secrets := range map[string][]string{
		"not base64":                    {standardOld, "whsec_geheim!"},
		"too short":                     {"whsec_Z2VoZWlt"},
		"a private key of a wrong size": {"whsk_Z2VoZWlt"},
		"halves that do not belong together": {"whsk_" + base64.StdEncoding.EncodeToString(
			[]byte(strings.Repeat("geheim??", 8)))},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := targetclient.NewStandardWebhooks(true, true, secrets)
			if err == nil {
				t.Fatal("no error")
			}
			for _, secret := range []string{"geheim", "Z2VoZWlt"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error shows the secret: %v", err)
				}
			}
		})
	}
	if _, err := targetclient.NewStandardWebhooks(true, true, []string{standardOld}); err == nil {
		t.Error("v1a without a key: no error")
	}
	if _, err := targetclient.NewStandardWebhooks(true, false, []string{seed('a')}); err == nil {
		t.Error("v1 without a secret: no error")
	}
}

func TestDeliveryHeaders(t *testing.T) {
	t.Parallel()
	var seen http.Header
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen = r.Header }))
	t.Cleanup(server.Close)
	client, err := targetclient.New(targetclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	standard, err := targetclient.NewStandardWebhooks(true, false, []string{standardOld})
	if err != nil {
		t.Fatal(err)
	}
	verify := func() error {
		reference, err := standardwebhooks.NewWebhook(standardOld)
		if err != nil {
			return err
		}
		return reference.Verify([]byte("{}"), seen)
	}
	target := &targetclient.Target{ID: "t", URL: server.URL}
	forged := &targetclient.Target{ID: "f", URL: server.URL, Headers: map[string]string{
		"Webhook-ID": "forged", "Webhook-Timestamp": "1", "EXECGATE-ATTEMPT": "9"}}
	signed := &targetclient.Target{ID: "s", URL: server.URL, StandardWebhooks: standard}
	for _, step := range []struct {
		name        string
		call        targetclient.Call
		id, attempt string
	}{
		{"a call without a name", targetclient.Call{Target: target}, "", ""},
		{"a delivery", targetclient.Call{Target: target, ID: "d1", Attempt: 3}, "d1", "3"},
		{"a delivery whose target has such headers", targetclient.Call{Target: forged, ID: "d1", Attempt: 3}, "d1", "3"},
		{"a signed delivery", targetclient.Call{Target: signed, ID: "d2", Attempt: 1}, "d2", "1"},
		{"a signed call gets a name", targetclient.Call{Target: signed}, "*", ""},
	} {
		step.call.Body = []byte("{}")
		if _, err := client.Do(t.Context(), step.call); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if got := seen.Get("webhook-id"); got != step.id && (step.id != "*" || got == "") {
			t.Errorf("%s: webhook-id %q", step.name, got)
		}
		if (seen.Get("webhook-timestamp") == "") != (step.id == "") {
			t.Errorf("%s: webhook-timestamp %q", step.name, seen.Get("webhook-timestamp"))
		}
		if got := seen.Get("execgate-attempt"); got != step.attempt {
			t.Errorf("%s: execgate-attempt %q", step.name, got)
		}
		if step.call.Target == signed {
			if err := verify(); err != nil {
				t.Errorf("%s: %v", step.name, err)
			}
		} else if seen.Get("webhook-signature") != "" {
			t.Errorf("%s: signed", step.name)
		}
	}
}

func TestRetryAfterIsReported(t *testing.T) {
	t.Parallel()
	date := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, step := range map[string]struct {
		status int
		value  string
		want   time.Duration
	}{
		"seconds":                           {429, "120", 2 * time.Minute},
		"a date, by the answer's own clock": {503, date.Add(time.Hour).Format(http.TimeFormat), time.Hour},
		"a date that is past":               {503, date.Add(-time.Hour).Format(http.TimeFormat), 0},
		"negative":                          {503, "-5", 0},
		"no number":                         {503, "soon", 0},
		"huge":                              {503, "18446744073709551615", 10 * 365 * 24 * time.Hour},
		"absent":                            {503, "", 0},
		"with a success":                    {200, "120", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", date.Format(http.TimeFormat))
				if step.value != "" {
					w.Header().Set("Retry-After", step.value)
				}
				w.WriteHeader(step.status)
			}))
			t.Cleanup(server.Close)
			client, err := targetclient.New(targetclient.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.Close)
			result, _ := client.Do(t.Context(), targetclient.Call{Target: &targetclient.Target{ID: "t", URL: server.URL}})
			if result.RetryAfter != step.want {
				t.Errorf("got %v, want %v", result.RetryAfter, step.want)
			}
		})
	}
}
