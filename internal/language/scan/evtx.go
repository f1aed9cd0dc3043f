package scan

import "errors"

func decodeEVTX(d *decoding, emit func(*Record) error) error {
	return errors.New("EVTX is not read yet")
}
