package drill

import (
	"io/fs"
	"testing"

	"github.com/holdfast-security/holdfast"
	"github.com/holdfast-security/holdfast/internal/language/bundle"
)

// Whatever a seed decides, the content is a bundle, and the hosts' recording
// holds what its rule is about, within the window of observation.
func TestSeedsMakeContentThatHostsMeet(t *testing.T) {
	met := map[strike]bool{}
	digests := map[holdfast.Digest]bool{}
	for seed := range uint64(200) {
		s := strikeOf(seed)
		met[s] = true
		if at := cycle()[s.after()]; at.Image != s.image() || s.after() >= len(cycle()) {
			t.Fatalf("seed %d: launch %d is %s, not %s", seed, s.after(), at.Image, s.image())
		}
		for name, repo := range map[string]fs.FS{"lethal": lethal(seed, s), "noisy": noisy(stormOf(seed))} {
			b, err := bundle.FromRepository(repo, "")
			if err != nil {
				t.Fatalf("seed %d, %s: %v", seed, name, err)
			}
			raw, err := b.Encode()
			if err != nil {
				t.Fatal(err)
			}
			digests[holdfast.DigestOf(raw)] = true
		}
	}
	if len(met) < 20 {
		t.Errorf("200 seeds make only %d different strikes", len(met))
	}
	if len(digests) < 200 {
		t.Errorf("200 seeds make only %d different bundles", len(digests))
	}
}
