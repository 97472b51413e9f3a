PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE ledger_head (
	id INTEGER NOT NULL, 
	schema INTEGER NOT NULL, 
	number BIGINT NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO ledger_head VALUES(1,1,17,'2c71f1f10ae2ff815b63357f5ecb4dcb81b791063661a78559b979993d898e48');
CREATE TABLE ledger_requests (
	id VARCHAR(18) NOT NULL, 
	filing TEXT NOT NULL, 
	live VARCHAR(64), 
	state VARCHAR(16) NOT NULL, 
	held BOOLEAN NOT NULL, 
	due BIGINT NOT NULL, 
	confirm_by BIGINT, 
	head VARCHAR(64) NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (live)
);
INSERT INTO ledger_requests VALUES('r-ceea3a569fe6958a','{"commitments":[],"erasure":{"dataset":"digits","label":7,"scope":"class"},"regime":"GDPR","scope":"class"}','d2e1b0274d23a1cafae60b5fdbe6c1605ac00bf43f3ff3b1ec3916cade66f19d','CERTIFIED',0,1798502399,NULL,'2c71f1f10ae2ff815b63357f5ecb4dcb81b791063661a78559b979993d898e48');
INSERT INTO ledger_requests VALUES('r-f9e70bae93e9e02c','{"commitments":[],"erasure":{"dataset":"digits","label":3,"scope":"class"},"regime":"GDPR","scope":"class"}','0f95756b98bfba7cd22a37a3090724411fa4c29b399dc8587714772f2b2c00bb','SUPPRESSED',0,1798502399,NULL,'70f19f86a4dea444f9436aa13a7c9f3d2d0e442f366efa178f43d7bf83647c8b');
CREATE TABLE ledger_events (
	number INTEGER NOT NULL, 
	request VARCHAR(18) NOT NULL, 
	digest VARCHAR(64) NOT NULL, 
	body TEXT NOT NULL, 
	PRIMARY KEY (number), 
	UNIQUE (digest)
);
INSERT INTO ledger_events VALUES(1,'r-ceea3a569fe6958a','3a1bcc4142edf5fd169e3721c538f54ca2b1f74d599efe94efe07376c0fbae17','{"after":"RECEIVED","at":"2026-11-28T10:32:55.968123Z","before":null,"by":"desk-1","facts":{"due":"2026-12-28T23:59:59Z","filing":"d2e1b0274d23a1cafae60b5fdbe6c1605ac00bf43f3ff3b1ec3916cade66f19d","received":"2026-11-28T10:32:55.968123Z","zone":"UTC"},"kind":"received","number":1,"previous":"0000000000000000000000000000000000000000000000000000000000000000","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(2,'r-ceea3a569fe6958a','57b1d7efb69983f73f57ee7c8525d20585e388839d34ba50af8515c764432469','{"after":"VERIFIED","at":"2026-11-28T10:32:56.689143Z","before":"RECEIVED","by":"desk-1","facts":{},"kind":"advanced","number":2,"previous":"3a1bcc4142edf5fd169e3721c538f54ca2b1f74d599efe94efe07376c0fbae17","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(3,'r-ceea3a569fe6958a','c582dd37009c621d83c7986fb17469b632b97d67071f1d582c8ceb4e254e4efe','{"after":"LOCATED","at":"2026-11-28T10:32:57.415619Z","before":"VERIFIED","by":"desk-1","facts":{},"kind":"advanced","number":3,"previous":"57b1d7efb69983f73f57ee7c8525d20585e388839d34ba50af8515c764432469","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(4,'r-ceea3a569fe6958a','fa9e5b3e84ab6fb57c89acda1a1e2f603ee264d01f7ecdf60ce86c793b802bf5','{"after":"ACCEPTED","at":"2026-11-28T10:32:58.306742Z","before":"LOCATED","by":"desk-1","facts":{},"kind":"advanced","number":4,"previous":"c582dd37009c621d83c7986fb17469b632b97d67071f1d582c8ceb4e254e4efe","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(5,'r-f9e70bae93e9e02c','1b0c4363d4806a6f5321609f7998e316d070ebe1b40d03ffca1b4557ee4b4cd0','{"after":"RECEIVED","at":"2026-11-28T10:32:59.048696Z","before":null,"by":"desk-1","facts":{"due":"2026-12-28T23:59:59Z","filing":"0f95756b98bfba7cd22a37a3090724411fa4c29b399dc8587714772f2b2c00bb","received":"2026-11-28T10:32:59.048696Z","zone":"UTC"},"kind":"received","number":5,"previous":"fa9e5b3e84ab6fb57c89acda1a1e2f603ee264d01f7ecdf60ce86c793b802bf5","request":"r-f9e70bae93e9e02c"}');
INSERT INTO ledger_events VALUES(6,'r-f9e70bae93e9e02c','ef32843b951c9100e296d48800a7ecd90df233ef179ff756e88cf747b89624f2','{"after":"VERIFIED","at":"2026-11-28T10:32:59.754692Z","before":"RECEIVED","by":"desk-1","facts":{},"kind":"advanced","number":6,"previous":"1b0c4363d4806a6f5321609f7998e316d070ebe1b40d03ffca1b4557ee4b4cd0","request":"r-f9e70bae93e9e02c"}');
INSERT INTO ledger_events VALUES(7,'r-f9e70bae93e9e02c','b94b0f81f2baf1b1c6f0a38cf3e9417a4e39e6f417d33d0760dd81f00c8082f3','{"after":"LOCATED","at":"2026-11-28T10:33:00.605337Z","before":"VERIFIED","by":"desk-1","facts":{},"kind":"advanced","number":7,"previous":"ef32843b951c9100e296d48800a7ecd90df233ef179ff756e88cf747b89624f2","request":"r-f9e70bae93e9e02c"}');
INSERT INTO ledger_events VALUES(8,'r-f9e70bae93e9e02c','63afac5111e8249d38d9ee93ec89c269ff88920ed4ded3be33afcadf624c2a36','{"after":"ACCEPTED","at":"2026-11-28T10:33:01.552951Z","before":"LOCATED","by":"desk-1","facts":{},"kind":"advanced","number":8,"previous":"b94b0f81f2baf1b1c6f0a38cf3e9417a4e39e6f417d33d0760dd81f00c8082f3","request":"r-f9e70bae93e9e02c"}');
INSERT INTO ledger_events VALUES(9,'r-f9e70bae93e9e02c','70f19f86a4dea444f9436aa13a7c9f3d2d0e442f366efa178f43d7bf83647c8b','{"after":"SUPPRESSED","at":"2026-11-28T10:33:02.336140Z","before":"ACCEPTED","by":"desk-1","facts":{},"kind":"advanced","number":9,"previous":"63afac5111e8249d38d9ee93ec89c269ff88920ed4ded3be33afcadf624c2a36","request":"r-f9e70bae93e9e02c"}');
INSERT INTO ledger_events VALUES(10,'r-ceea3a569fe6958a','d17e00fb18ab027742ab264cb63009a24dd7e1a048ff088adbc51e9f4ddec289','{"after":"SUPPRESSED","at":"2026-11-28T10:33:07.237579Z","before":"ACCEPTED","by":"erasediff","facts":{},"kind":"advanced","number":10,"previous":"70f19f86a4dea444f9436aa13a7c9f3d2d0e442f366efa178f43d7bf83647c8b","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(11,'r-ceea3a569fe6958a','40c3bbe9007a3a572cab5f113db3fb21f9c804a56d82821377d3031e695a6d25','{"after":"BATCHED","at":"2026-11-28T10:33:07.247948Z","before":"SUPPRESSED","by":"erasediff","facts":{"attempt":1,"run":"ed4a1ab2b5e708e7-1"},"kind":"advanced","number":11,"previous":"d17e00fb18ab027742ab264cb63009a24dd7e1a048ff088adbc51e9f4ddec289","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(12,'r-ceea3a569fe6958a','bce114c0ab233316381b15bc27dbfd39a12518fbfd364f5c194a52ccf39eb4ec','{"after":"ERASED","at":"2026-11-28T10:33:33.022694Z","before":"BATCHED","by":"erasediff","facts":{"erased_sha256":"30140c857c73716928ad08fe5ec0b68c544e460342c3afa63bd3380add364013"},"kind":"advanced","number":12,"previous":"40c3bbe9007a3a572cab5f113db3fb21f9c804a56d82821377d3031e695a6d25","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(13,'r-ceea3a569fe6958a','fc4aa30d7d4e639f12180d9747b186faf33e4d5df8becb84b4d7df5163b5fe20','{"after":"GATED","at":"2026-11-28T10:33:36.689874Z","before":"ERASED","by":"erasediff","facts":{"verdict":"PASS","verdict_sha256":"5fd3928c5025dc82958cc5833af98ac45093414dd4dd095e9c1832fe3188c5b3"},"kind":"advanced","number":13,"previous":"bce114c0ab233316381b15bc27dbfd39a12518fbfd364f5c194a52ccf39eb4ec","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(14,'r-ceea3a569fe6958a','dae13a30c62125f65f5ab07fa152023019ff003e841784d131907779e2e0adf0','{"after":"ROLLED_OUT","at":"2026-11-28T10:33:43.663885Z","before":"GATED","by":"erasediff","facts":{"epoch":1},"kind":"advanced","number":14,"previous":"fc4aa30d7d4e639f12180d9747b186faf33e4d5df8becb84b4d7df5163b5fe20","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(15,'r-ceea3a569fe6958a','5a4eab52eed5c2361605d979787f96d1124059ef7cec17b64fa231e3456e5eab','{"after":"PURGING","at":"2026-11-28T10:33:44.837327Z","before":"ROLLED_OUT","by":"erasediff","facts":{},"kind":"advanced","number":15,"previous":"dae13a30c62125f65f5ab07fa152023019ff003e841784d131907779e2e0adf0","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(16,'r-ceea3a569fe6958a','faf678336c9b2c686349a09f101a7549404231a76d1e7c8aed5d542611a22c19','{"after":"PURGED","at":"2026-11-28T10:33:45.195058Z","before":"PURGING","by":"erasediff","facts":{"purge_sha256":"f3a4f0b6ac8590e86ffd205e850c56d2ff46de4dafc192ac66c8407c0e1687a1"},"kind":"advanced","number":16,"previous":"5a4eab52eed5c2361605d979787f96d1124059ef7cec17b64fa231e3456e5eab","request":"r-ceea3a569fe6958a"}');
INSERT INTO ledger_events VALUES(17,'r-ceea3a569fe6958a','2c71f1f10ae2ff815b63357f5ecb4dcb81b791063661a78559b979993d898e48','{"after":"CERTIFIED","at":"2026-11-28T10:33:45.274441Z","before":"PURGED","by":"erasediff","facts":{"certificate_sha256":"d89dabe3b04495f68d0fdc8d5cdbc50c8b8042eb46feb0f7baf1636d9d0b9cfa"},"kind":"advanced","number":17,"previous":"faf678336c9b2c686349a09f101a7549404231a76d1e7c8aed5d542611a22c19","request":"r-ceea3a569fe6958a"}');
CREATE INDEX ledger_requests_due ON ledger_requests (state, due);
CREATE INDEX ix_ledger_events_request ON ledger_events (request);
COMMIT;
